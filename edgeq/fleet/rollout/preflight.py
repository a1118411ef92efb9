"""Refuse a rollout before its first stage that its devices would refuse; they are only asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.bundle.counters import counter_of
from edgeq.bundle.trust_chain import TrustChain
from edgeq.errors import DeviceUnsupported, RolloutError
from edgeq.fleet.backoff import NO_RETRY
from edgeq.fleet.connect import ask
from edgeq.fleet.operations import read_status
from edgeq.fleet.parallel import on_each
from edgeq.fleet.plan import edgetpu_problem
from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.trust_documents import pending, trust_steps, void_releases
from edgeq.store import Store
from edgeq.values import Device

# A few devices show that a release is old; a fleet of thousands is not asked twice.
MOST_ASKED = 8
_OLDER = "EQ535"


def refuse_older(
    store: Store,
    bundle: Bundle,
    devices: Sequence[Device],
    *,
    first: Sequence[str],
    timeout_s: float,
    chain: TrustChain | None = None,
) -> None:
    """Ask devices of the first stage, and those that the store knows to have a newer release.

    A device that does not answer is judged in its stage; if none does, the store's knowledge counts.

    Args:
        devices: of all stages.
        first: the names of the devices of the first stage.
        chain: the trust document that devices get before the release; it may reset counters.

    Raises:
        RolloutError: EQ827, devices have committed a higher counter, and would refuse this release.
    """
    chain = chain or TrustChain()
    committed = _committed(store, bundle, void_releases(chain, store))
    newer = [name for name, counter in committed.items() if counter > bundle.parsed.counter]
    by_name = {device.name: device for device in devices}
    known = [name for name in newer if name in by_name]
    chosen = dict.fromkeys([*known[:MOST_ASKED], *list(first)[:MOST_ASKED]])
    answers = on_each(
        [by_name[name] for name in chosen],
        lambda device: ask(device, read_status, repeatable=True, retry_policy=NO_RETRY, timeout_s=timeout_s),
    )
    refusing = {
        name: step.reason
        for name, status in answers.done.items()
        for step in trust_steps(status, bundle, pending(chain, status.trust))
        if step.code == _OLDER
    }
    if not refusing and (answers.done or not known):
        return
    names = list(refusing) or known
    reason = next(iter(refusing.values()), f"its counter is only {bundle.parsed.counter}")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise RolloutError(
        f"{bundle.model} {bundle.release[:12]}",
        f"is older than what {', '.join(names[:3])}{more} committed, nothing was changed: "
        f"{reason.partition(': ')[0]}",
        hint=f"`edgeq rollback {bundle.model} --on {names[0]}` goes back to an older release; "
        "`edgeq bundle MODEL -o FILE` makes a new one of the same model",
        code="EQ827",
    )


def refuse_without_edgetpu(
    bundle: Bundle, devices: Sequence[Device], *, first: Sequence[str], timeout_s: float
) -> None:
    """Ask devices of the first stage for their Edge TPU, if only that runs the bundle's model.

    A device that does not answer is judged in its stage.

    Args:
        devices, first: as for `refuse_older`.

    Raises:
        DeviceUnsupported: EQ560, one of them has none that works.
    """
    if not bundle.needs_edgetpu:
        return
    asked = [device for device in devices if device.name in list(first)[:MOST_ASKED]]
    answers = on_each(
        asked,
        lambda device: ask(
            device,
            lambda client: client.facts(),
            repeatable=True,
            retry_policy=NO_RETRY,
            timeout_s=timeout_s,
        ),
    )
    for name, facts in answers.done.items():
        problem = edgetpu_problem(facts)
        if problem is not None:
            raise DeviceUnsupported(f"{name}: {bundle.model}", problem, code="EQ560")


def _committed(store: Store, bundle: Bundle, void: Collection[str]) -> dict[str, int]:
    """Return the highest counter of the model that each device committed, by the recorded runs.

    Args:
        void: releases that do not count any more.
    """
    releases = (each for each in store.releases() if each.release not in void)
    counters = {each.release: counter_of(each.manifest) for each in releases}
    highest: dict[str, int] = {}
    for run in (*store.runs("deploy", limit=1000), *store.runs("rollout", limit=1000)):
        if run.subject == bundle.model:
            counter = counters.get(run.body.get("release", ""), 0)
            for entry in run.body.get("devices", []):
                if _succeeded(entry):
                    highest[entry["device"]] = max(counter, highest.get(entry["device"], 0))
    return highest


def _succeeded(entry: Mapping[str, Any]) -> bool:
    if "outcome" in entry:
        return bool(entry["outcome"] == Outcome.SUCCEEDED)
    return bool(entry.get("ok") and entry.get("state") == "committed")
