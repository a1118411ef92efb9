"""Checks of this machine and of its devices, each with a result and a fix."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeq.crash import unexpected
from edgeq.errors import EdgeqError
from edgeq.fleet.facts import AutostartFact, EdgeTpu, Facts
from edgeq.fleet.responses import TrustSummary
from edgeq.fleet.trust import summary
from edgeq.kernels import class_name, table_for, unsuited
from edgeq.units import format_size
from edgeq.values import Device
from edgeq_converters.sources import onnx_environment
from edgeq_converters.values import Scheme


class Health(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check and its result.

    Attributes:
        subject: `local`, or the name of a device.
        name: what was checked: `python`, `disk`, `runtime`, ...
        detail: what was found.
        fix: what to do about it; None if the check passed.
    """

    subject: str
    name: str
    health: Health
    detail: str
    fix: str | None = None


# distribution -> the extra that installs it
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
    """Check this machine: Python, optional packages, disk space and the store."""
    return [_python(), *_extras(), _onnx2tf(), _disk(workspace), _store(workspace), _kernels(workspace)]


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


def _onnx2tf() -> Check:
    folder = onnx_environment.folder()
    if onnx_environment.python() is None:
        detail = f"none yet; the first ONNX source installs {onnx_environment.SIZE} into {folder.parent}"
        return _local("onnx2tf", Health.OK, detail)
    return _local("onnx2tf", Health.OK, f"{onnx_environment.VERSION} in {folder}")


def _disk(workspace: Path) -> Check:
    # The first command that writes creates the workspace, so it may not exist yet.
    folder = next(path for path in (workspace.absolute(), *workspace.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{format_size(free_bytes)} free in {folder}"
    if free_bytes < LEAST_FREE_BYTES:
        return _local("disk", Health.WARN, detail, f"free at least {format_size(LEAST_FREE_BYTES)} there")
    return _local("disk", Health.OK, detail)


def _store(workspace: Path) -> Check:
    from edgeq.store import Store

    path = workspace / ".edgeq" / "store.db"
    if not path.exists():
        return _local("store", Health.OK, "none yet; the first command that records something creates it")
    try:
        with Store.open(workspace) as store:
            runs = len(store.runs())
    except EdgeqError as error:
        return _local("store", Health.FAIL, error.message, error.hint)
    return _local("store", Health.OK, f"{path} opens, {runs} recent runs")


def _kernels(workspace: Path) -> Check:
    return _kernels_of("local", platform.machine(), platform.machine(), workspace, "edgeq devices kernels")


def examine_kernels(device: Device, facts: Facts, workspace: Path) -> Check:
    """Check which schemes suit a device, by its own kernel table or by that of its class of machines."""
    machine = class_name(facts.machine, facts.pointer_bits)
    return _kernels_of(device.name, device.name, machine, workspace, f"edgeq devices kernels {device.name}")


def _kernels_of(subject: str, name: str, machine: str, workspace: Path, measure: str) -> Check:
    from edgeq.store import Store

    def check(health: Health, detail: str, fix: str | None = None) -> Check:
        return Check(subject=subject, name="kernels", health=health, detail=detail, fix=fix)

    try:
        if (workspace / ".edgeq" / "store.db").exists():
            with Store.open(workspace) as store:
                table = table_for(name, store, machine=machine)
        else:
            table = table_for(name, None, machine=machine)
    except EdgeqError as error:
        return check(Health.WARN, error.message, error.hint)
    if table is None:
        return check(Health.OK, f"not measured on {machine}; run `{measure}`")
    reasons = [reason for scheme in Scheme if (reason := unsuited(table, scheme)) is not None]
    return check(
        Health.OK, "; ".join(reasons) or f"nothing speaks against a scheme that was probed ({table})"
    )


def examine_trust(device: Device, trust: TrustSummary | None) -> list[Check]:
    """Check the trust store of a device, as its agent's `status` reports it; no check without one."""
    if trust is None:
        return []
    detail = summary(trust)
    if trust.problem:
        health, fix = Health.FAIL, "recreate the trust store on the device: see EQ537 in docs/errors.md"
    elif not trust.keys:
        health, fix = Health.WARN, f"run `edgeq keys trust --on {device.name}`"
    else:
        return [Check(subject=device.name, name="trust", health=Health.OK, detail=detail)]
    return [Check(subject=device.name, name="trust", health=health, detail=detail, fix=fix)]


def examine_device(
    device: Device,
    facts_of: Callable[[Device], Facts],
    *,
    starts: Mapping[str, AutostartFact] | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> list[Check]:
    """Check one device. A device that does not answer is one failed check.

    Args:
        device: the entry of the inventory.
        facts_of: gets the facts from the device's agent.
        starts: answers of the agent's verb `service` by device name. `facts_of` may fill it. They also say
            whether something starts the agent when the device boots.
        now_ns: the clock of this machine, in nanoseconds since 1970 (UTC).
    """

    def check(name: str, health: Health, detail: str, fix: str | None = None) -> Check:
        return Check(subject=device.name, name=name, health=health, detail=detail, fix=fix)

    try:
        facts = facts_of(device)
    except Exception as error:  # noqa: BLE001 - a bug on one device must not end the checks of the others
        failure = unexpected(error, subject=device.name, device=device.name)
        return [check("reachable", Health.FAIL, failure.message, failure.hint)]
    checks = [
        check(
            "reachable",
            Health.OK,
            f"{device.user}@{device.host}:{device.port}, host key matches the pinned one",
        ),
        check("python", Health.OK, f"{facts.python} on {facts.machine}, runs the agent"),
    ]
    if facts.runtimes:
        named = ", ".join(f"{runtime.module} {runtime.version}" for runtime in facts.runtimes)
        checks.append(check("runtime", Health.OK, named))
    else:
        fix = "the first `edgeq deploy BUNDLE --to DEVICE` installs one"
        checks.append(check("runtime", Health.WARN, "no inference runtime yet", fix))
    if facts.edgetpu is not None:
        checks.append(_edgetpu(device.name, facts.edgetpu))
    checks.append(_service(device.name, (starts or {}).get(device.name) or facts.service))
    low = facts.free_bytes < LEAST_FREE_BYTES_DEVICE
    space_fix = f"free at least {format_size(LEAST_FREE_BYTES_DEVICE)} on the device" if low else None
    checks.append(
        check("space", Health.WARN if low else Health.OK, f"{format_size(facts.free_bytes)} free", space_fix)
    )
    skew_ns = abs(facts.time_ns - now_ns())
    off = skew_ns > CLOCK_SKEW_MAX_NS
    clock_fix = (
        "set the device's clock (timedatectl set-ntp true); deployments do not need it" if off else None
    )
    detail = f"differs by {skew_ns / 1e9:.0f} s from this machine's clock"
    checks.append(check("clock", Health.WARN if off else Health.OK, detail, clock_fix))
    return checks


def _edgetpu(name: str, tpu: EdgeTpu) -> Check:
    """Check the Edge TPU of a device that has the library or the accelerator."""
    devices = ", ".join(tpu.devices)
    if tpu.loads and devices:
        return Check(subject=name, name="edgetpu", health=Health.OK, detail=f"{tpu.library} loads, {devices}")
    detail = f"{devices or 'no accelerator found'}; {tpu.problem or f'{tpu.library} loads'}"
    fix = "install libedgetpu and plug in the accelerator; models not compiled for it run without both"
    return Check(subject=name, name="edgetpu", health=Health.WARN, detail=detail, fix=fix)


def _service(name: str, service: AutostartFact | None) -> Check:
    """Check the boot service of a device, as its agent's probe or verb `service` reports it."""

    def check(health: Health, detail: str, fix: str | None = None) -> Check:
        return Check(subject=name, name="service", health=health, detail=detail, fix=fix)

    enable = f"run `edgeq devices service {name} --enable`"
    if service is None:
        detail = (
            "none: after a restart, an interrupted deployment waits for the next edgeq command to recover"
        )
        return check(Health.WARN, detail, enable)
    last = service.last
    if not service.whole:
        return check(
            Health.FAIL, f"{service.kind}, but its files have changed since the installation", enable
        )
    if last is None or not service.ran_in_this_boot:
        return check(Health.WARN, f"{service.kind}, but it has not run since the device booted", enable)
    if not last.ok:
        return check(Health.FAIL, f"{service.kind}, but its last run failed: {last.problem}", enable)
    if service.at_boot is False:
        return check(Health.WARN, f"{service.kind}, but nothing starts it at boot: {service.why}", enable)
    seen = "ran at boot" if service.seen_at_boot else "the device has not been restarted yet"
    return check(Health.OK, f"{service.kind}, {seen}")


def worst(checks: list[Check]) -> Health:
    """Return the worst result; OK without checks."""
    order = [Health.OK, Health.WARN, Health.FAIL]
    return max((check.health for check in checks), key=order.index, default=Health.OK)
