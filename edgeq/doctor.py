"""The doctor: what is there on this machine and on its devices, what is not, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.fleet.facts import Facts
from edgeq.fleet.trust import summary
from edgeq.units import format_size
from edgeq.values import Device


class Health(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        subject: `local`, or a device's name.
        fix: the next thing to do, or None where all is well.
    """

    subject: str
    name: str
    health: Health
    detail: str
    fix: str | None = None


# distribution -> the extra that brings it
EXTRAS = {
    "tensorflow": "convert",
    "tf_keras": "convert",
    "ai-edge-litert": "convert",
    "litert-quantizer": "convert",
    "plotly": "dashboard",
    "jinja2": "dashboard",
    "scikit-learn": "demo",
}
LEAST_FREE_BYTES = 2 * 1024**3
LEAST_FREE_BYTES_DEVICE = 256 * 1024**2
CLOCK_SKEW_MAX_NS = 5 * 60 * 10**9


def examine_host(workspace: Path) -> list[Check]:
    """Return the checks of this machine."""
    return [_python(), *_extras(), _disk(workspace), _store(workspace)]


def _local(name: str, health: Health, detail: str, fix: str | None = None) -> Check:
    return Check(subject="local", name=name, health=health, detail=detail, fix=fix)


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.machine()}"
    return _local("python", Health.OK, detail)


def _extras() -> list[Check]:
    checks = []
    for distribution, extra in EXTRAS.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            fix = f"pip install 'edgeq[{extra}]'"
            checks.append(_local(distribution, Health.WARN, "not installed", fix))
        else:
            checks.append(_local(distribution, Health.OK, version))
    return checks


def _disk(workspace: Path) -> Check:
    # The workspace may not exist before the first command writes to it.
    folder = next(path for path in (workspace.absolute(), *workspace.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{format_size(free_bytes)} free in {folder}"
    if free_bytes < LEAST_FREE_BYTES:
        return _local("disk", Health.WARN, detail, f"free {format_size(LEAST_FREE_BYTES)}")
    return _local("disk", Health.OK, detail)


def _store(workspace: Path) -> Check:
    from edgeq.store import Store

    path = workspace / ".edgeq" / "store.db"
    if not path.exists():
        return _local("store", Health.OK, "none yet; the first command that records makes it")
    try:
        with Store.open(workspace) as store:
            runs = len(store.runs())
    except EdgeqError as error:
        return _local("store", Health.FAIL, error.message, error.hint)
    return _local("store", Health.OK, f"{path} opens, {runs} recent runs")


def examine_trust(device: Device, trust: Mapping[str, Any] | None) -> list[Check]:
    """Return the check of a device's trust store, as `status` tells of it; none where it was not asked."""
    if trust is None:
        return []
    detail = summary(trust)
    if trust.get("problem"):
        health, fix = Health.FAIL, "see docs/errors.md, EQ537: the store is made anew on the device"
    elif not trust["keys"]:
        health, fix = Health.WARN, f"edgeq keys trust --on {device.name}"
    else:
        return [Check(subject=device.name, name="trust", health=Health.OK, detail=detail)]
    return [Check(subject=device.name, name="trust", health=health, detail=detail, fix=fix)]


def examine_device(
    device: Device,
    facts_of: Callable[[Device], Facts],
    *,
    starts: Mapping[str, Mapping[str, Any]] | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> list[Check]:
    """Return the checks of one device; a device that cannot be reached is one failed check.

    Args:
        facts_of: asks the device's agent for its facts (`edgeq.fleet`).
        starts: what the agent's verb `service` said, by device, once the facts are asked for: it knows also
            whether anything starts it with the device.
    """

    def check(name: str, health: Health, detail: str, fix: str | None = None) -> Check:
        return Check(subject=device.name, name=name, health=health, detail=detail, fix=fix)

    try:
        facts = facts_of(device)
    except EdgeqError as error:
        return [check("reachable", Health.FAIL, error.message, error.hint)]
    checks = [
        check("reachable", Health.OK, f"{device.user}@{device.host}:{device.port}, host key as pinned"),
        check("python", Health.OK, f"{facts.python} on {facts.machine}, it ran the agent"),
    ]
    if facts.runtimes:
        named = ", ".join(f"{runtime.module} {runtime.version}" for runtime in facts.runtimes)
        checks.append(check("runtime", Health.OK, named))
    else:
        fix = "the first `edgeq deploy` brings one"
        checks.append(check("runtime", Health.WARN, "no inference runtime yet", fix))
    if facts.raw.get("edgetpu"):
        checks.append(_edgetpu(device.name, facts.raw["edgetpu"]))
    checks.append(_service(device.name, (starts or {}).get(device.name) or facts.raw.get("service")))
    low = facts.free_bytes < LEAST_FREE_BYTES_DEVICE
    mend = f"free {format_size(LEAST_FREE_BYTES_DEVICE)} on the device" if low else None
    checks.append(
        check("space", Health.WARN if low else Health.OK, f"{format_size(facts.free_bytes)} free", mend)
    )
    skew_ns = abs(facts.time_ns - now_ns())
    off = skew_ns > CLOCK_SKEW_MAX_NS
    mend = "set the device's clock (timedatectl set-ntp true); releases do not depend on it" if off else None
    detail = f"{skew_ns / 1e9:.0f} s away from this machine's"
    checks.append(check("clock", Health.WARN if off else Health.OK, detail, mend))
    return checks


def _edgetpu(name: str, found: Mapping[str, Any]) -> Check:
    """Return the check of an Edge TPU of which the device has a part."""
    devices = ", ".join(found["devices"])
    if found["loads"] and devices:
        return Check(
            subject=name, name="edgetpu", health=Health.OK, detail=f"{found['library']} loads, {devices}"
        )
    detail = f"{devices or 'no accelerator is seen'}; {found['problem'] or found['library'] + ' loads'}"
    fix = "install libedgetpu, plug the accelerator in; models that were not compiled run without both"
    return Check(subject=name, name="edgetpu", health=Health.WARN, detail=detail, fix=fix)


def _service(name: str, service: Mapping[str, Any] | None) -> Check:
    """Return the check of what starts the agent with the device, from what the device's probe said."""

    def check(health: Health, detail: str, fix: str | None = None) -> Check:
        return Check(subject=name, name="service", health=health, detail=detail, fix=fix)

    enable = f"edgeq devices service {name} --enable"
    if service is None:
        detail = "none: a trial that a restart interrupts goes back at the next call only"
        return check(Health.WARN, detail, enable)
    last = service["last"]
    if not service["whole"]:
        return check(Health.FAIL, f"{service['kind']}, but its files are not as installed", enable)
    if not service["ran_in_this_boot"]:
        return check(Health.WARN, f"{service['kind']}, but it did not run since the device started", enable)
    if not last["ok"]:
        return check(Health.FAIL, f"{service['kind']}, its last run failed: {last['problem']}", enable)
    if service.get("at_boot") is False:
        return check(Health.WARN, f"{service['kind']}, but nothing starts it: {service['why']}", enable)
    seen = "seen to run at a start" if service["seen_at_boot"] else "no start of the device seen yet"
    return check(Health.OK, f"{service['kind']}, {seen}")


def worst(checks: list[Check]) -> Health:
    """Return the worst health among checks."""
    order = [Health.OK, Health.WARN, Health.FAIL]
    return max((check.health for check in checks), key=order.index, default=Health.OK)
