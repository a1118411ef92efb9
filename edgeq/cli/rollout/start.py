"""`edgeq deploy --stages`: begin a rollout, or go on with the failed devices of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.cli.rollout.session import drive, finish
from edgeq.cli.ui import App
from edgeq.errors import RolloutDamaged, UsageError

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.rollout.spec import Terms
    from edgeq.fleet.rollout.state import Rollout

_SOAK, _ON_ABORT, _AT_ONCE = "0s", "stop", 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a staged deploy as they were typed; None: not."""

    stages: str | None
    soak: str | None
    abort: str | None
    on_abort: str | None
    at_once: int | None
    retry_failed: bool
    retries: int

    @property
    def any(self) -> bool:
        """Whether the deploy is one in stages; a trial alone does not make it one."""
        return self != Asked(
            stages=None,
            soak=self.soak,
            abort=None,
            on_abort=None,
            at_once=None,
            retry_failed=False,
            retries=self.retries,
        )


def deploy_in_stages(
    app: App, path: Path, selectors: tuple[str, ...], asked: Asked, *, dry_run: bool, yes: bool
) -> None:
    """Drive a rollout as far as it goes."""
    from edgeq.bundle.archive import parse_bundle
    from edgeq.bundle.archive import read_bundle as read
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.rollout import rollout_store

    content = read(path)
    inventory = Inventory.load(app.workspace)
    devices = inventory.select(selectors)
    labels = {device.name: device.labels for device in devices}
    if asked.retry_failed:
        _retry(app, content, selectors, labels, asked, dry_run=dry_run)
        return
    if asked.stages is None:
        raise UsageError(
            "edgeq deploy",
            "--abort, --on-abort and --at-once belong to a deploy in stages",
            hint="add --stages, for example --stages 1,10%,50%,100%",
        )

    def agree(rollout_id: str) -> Terms:
        return _terms(rollout_id, content, selectors, labels, asked)

    name = f"{content.model}-{content.release[:8]}"
    terms = agree(rollout_store.next_id(app.workspace, name))
    if dry_run:
        _show_terms(app, terms)
        return
    question = f"Change up to {len(devices)} devices in {len(terms.stages)} stages?"
    if not app.ui.confirm(question, yes=yes):
        app.ui.say("nothing was changed")
        return
    data = path.read_bytes()
    if parse_bundle(data, subject=str(path)).release != content.release:
        raise UsageError(str(path), "was replaced while it was read", hint="run the same command again")
    _remember(app, content)
    with rollout_store.begin(app.workspace, name=name, bundle=data, agree=agree) as opened:
        app.ui.say(f"rollout {opened.rollout.terms.rollout}")
        drive(app, opened, inventory, retries=asked.retries)
    finish(app, opened.rollout)


def _terms(
    rollout_id: str,
    content: Bundle,
    selectors: tuple[str, ...],
    labels: dict[str, Any],
    asked: Asked,
) -> Terms:
    from edgeq.fleet.rollout.abort import DEFAULT, parse_rules
    from edgeq.fleet.rollout.spec import OnAbort, StageTerms, Terms
    from edgeq.fleet.rollout.stages import parse_stages, partition
    from edgeq.units import parse_duration

    stages = parse_stages(asked.stages or "")
    parts = partition(stages, labels, seed=rollout_id)
    return Terms(
        rollout=rollout_id,
        model=content.model,
        release=content.release,
        selectors=selectors,
        stages=tuple(
            StageTerms(text=stage.text, devices=part) for stage, part in zip(stages, parts, strict=True)
        ),
        rules=parse_rules(DEFAULT if asked.abort is None else asked.abort),
        soak_s=parse_duration(asked.soak or _SOAK, subject="--soak") / 1e9,
        on_abort=OnAbort(asked.on_abort or _ON_ABORT),
        at_once=asked.at_once or _AT_ONCE,
    )


def _retry(
    app: App,
    content: Bundle,
    selectors: tuple[str, ...],
    labels: dict[str, Any],
    asked: Asked,
    *,
    dry_run: bool,
) -> None:
    from edgeq.cli.rollout.manage import resume

    found = _latest(app.workspace, content)
    if found is None:
        raise UsageError(
            "--retry-failed",
            f"there is no rollout of {content.model} {content.release[:12]} to go on with",
            hint="leave --retry-failed out to begin one; `edgeq rollout list` shows those that are there",
        )
    _check_same(found, labels, asked)
    if dry_run:
        _show_terms(app, found.terms)
        return
    resume(app, found.terms.rollout, retry_failed=True, accept=False, retries=asked.retries)


def _latest(workspace: Path, content: Bundle) -> Rollout | None:
    from edgeq.fleet.rollout import rollout_store

    found = [
        one
        for one in rollout_store.read_all(workspace)
        if not isinstance(one, RolloutDamaged)
        and (one.terms.model, one.terms.release) == (content.model, content.release)
    ]
    return found[-1] if found else None


def _check_same(found: Rollout, labels: dict[str, Any], asked: Asked) -> None:
    """A rollout keeps its terms: options typed again must say the same."""
    from edgeq.units import parse_duration

    terms = found.terms
    differs = {
        "--to": set(labels) != set(terms.devices),
        "--stages": asked.stages is not None
        and [token.strip() for token in asked.stages.split(",")] != [stage.text for stage in terms.stages],
        "--soak": asked.soak is not None
        and parse_duration(asked.soak, subject="--soak") / 1e9 != terms.soak_s,
        "--abort": asked.abort is not None and asked.abort != terms.rules.text,
        "--on-abort": asked.on_abort is not None and asked.on_abort != terms.on_abort.value,
        "--at-once": asked.at_once is not None and asked.at_once != terms.at_once,
    }
    for option, other in differs.items():
        if other:
            raise UsageError(
                option,
                f"is not what rollout {terms.rollout} began with, and --retry-failed goes on with that one",
                hint=f"leave {option} as it was; `edgeq rollout show {terms.rollout}` says what that is",
            )


def _show_terms(app: App, terms: Terms) -> None:
    for number, stage in enumerate(terms.stages, start=1):
        names = ", ".join(stage.devices[:8]) + (", ..." if len(stage.devices) > 8 else "")
        app.ui.line(f"stage {number}/{len(terms.stages)} {stage.text}: {len(stage.devices)} ({names})")
    app.ui.line(f"soak {terms.soak_s:g} s, abort on {terms.rules.text}, then {terms.on_abort.value}")
    app.ui.emit("edgeq.rollout/1", {**terms.to_dict(), "dry_run": True})


def _remember(app: App, content: Bundle) -> None:
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        # The monitor judges this release's windows against the reference that the bundle carries.
        store.put_release(content.release, content.manifest, content.reference)
