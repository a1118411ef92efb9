"""Plan a deploy to one device: a pure function from its facts and a bundle to steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgeq.bundle.manifest import Manifest
from edgeq.errors import DeviceError, DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.facts import Facts
from edgeq.fleet.responses import DeviceStatus, ModelStatus
from edgeq.fleet.runtimes.wheels import RuntimeKind, RuntimeSpec
from edgeq.units import format_size
from edgeq.values import Device

# A wheel is a zip: unpacked it is about three times as large, and the wheel itself stays as a blob.
_UNPACKED_RATIO = 3
# Free space that is left to the device for its journal, telemetry and the system.
_RESERVE_BYTES = 4 * 2**20


class Action(StrEnum):
    """What a step does."""

    CREATE = "create"
    CHANGE = "change"
    SAME = "same"
    BLOCKED = "blocked"

    @property
    def sign(self) -> str:
        """The sign in a printed plan."""
        return {"create": "+", "change": "~", "same": "=", "blocked": "!"}[self.value]


class Component(StrEnum):
    """What a step acts on."""

    AGENT = "agent"
    BLOB = "blob"
    RUNTIME = "runtime"
    RELEASE = "release"
    TRUST = "trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One line of a plan.

    Attributes:
        subject: a name such as `model.tflite`.
        reason: why the step is needed, not needed, or blocked.
        size_bytes: what would be sent for it.
        key: the blob's SHA-256, the runtime's digest, or the release's id.
        code: the error code of a blocked step.
    """

    action: Action
    part: Component
    subject: str
    reason: str
    size_bytes: int = 0
    key: str = ""
    code: str = ""

    @property
    def text(self) -> str:
        """The step as one line of text."""
        size = f" ({format_size(self.size_bytes)})" if self.size_bytes else ""
        return f"{self.action.sign} {self.part.value:<8} {self.subject}{size}: {self.reason}"

    def to_dict(self) -> dict[str, object]:
        """The step as in `--json`."""
        return {
            "action": self.action.value,
            "part": self.part.value,
            "subject": self.subject,
            "reason": self.reason,
            "size_bytes": self.size_bytes,
            "key": self.key,
            "code": self.code or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps of a deploy to one device, in order."""

    device: str
    model: str
    release: str
    steps: tuple[PlanStep, ...]

    @property
    def to_do(self) -> tuple[PlanStep, ...]:
        """The steps that change something. The agent file is installed already: planning needed it."""
        changes = (Action.CREATE, Action.CHANGE)
        return tuple(s for s in self.steps if s.action in changes and s.part is not Component.AGENT)

    @property
    def is_empty(self) -> bool:
        """Whether the device already serves the bundle."""
        return not self.to_do and not self.blocked

    @property
    def blocked(self) -> tuple[PlanStep, ...]:
        """The steps that cannot be done."""
        return tuple(step for step in self.steps if step.action is Action.BLOCKED)

    @property
    def send_bytes(self) -> int:
        """The size of what applying the plan sends."""
        return sum(step.size_bytes for step in self.to_do)

    def check(self) -> None:
        """Raise the error of the first blocked step.

        Raises:
            DeviceOutOfSpace, DeviceUnsupported, DeviceError: by the step's code.
        """
        for step in self.blocked:
            kinds: dict[str, type[DeviceError]] = {
                "EQ501": DeviceOutOfSpace,
                "EQ503": DeviceUnsupported,
                "EQ560": DeviceUnsupported,
            }
            kind = kinds.get(step.code, DeviceError)
            raise kind(f"{self.device}: {step.subject}", step.reason, code=step.code or None)


def plan(
    facts: Facts,
    status: DeviceStatus,
    missing: Sequence[str],
    manifest: Manifest,
    runtime: RuntimeSpec,
    *,
    release: str,
    device: Device,
    needs_edgetpu: bool = False,
) -> Plan:
    """Return the steps after which the device serves a release.

    Args:
        missing: which of the bundle's and the runtime's blobs the device lacks.
        manifest: of the release.
        runtime: what the model will run on.
        needs_edgetpu: whether only an Edge TPU can run the release.
    """
    serving = status.model(manifest.model)
    has_runtime = runtime.digest in {known.digest for known in facts.runtimes}
    current = (
        serving.current == release
        and has_runtime
        and serving.runtime == runtime.digest
        # The link may name a release whose files on the device are damaged.
        and ("releases" not in serving.document or release in serving.releases)
        and release not in serving.damaged
    )
    steps = [
        _agent_step(facts),
        *_runtime_steps(runtime, has_runtime, missing),
        *_blob_steps(manifest, missing),
        _release_step(serving, release, current, manifest.model),
    ]
    if not current:
        steps = [*_device_steps(facts, device, manifest, needs_edgetpu), *steps]
        steps = _check_space(facts, steps, runtime, manifest)
    return Plan(device=device.name, model=manifest.model, release=release, steps=tuple(steps))


def _agent_step(facts: Facts) -> PlanStep:
    reasons = {
        "create": "installed to read the device's facts; it serves nothing yet",
        "change": "the file on the device had other content and was replaced",
        "same": "already on the device",
    }
    return PlanStep(
        action=Action(facts.agent.action),
        part=Component.AGENT,
        subject=facts.agent.sha256[:12],
        reason=reasons[facts.agent.action],
        size_bytes=facts.agent.size_bytes,
        key=facts.agent.sha256,
    )


def _runtime_steps(runtime: RuntimeSpec, has_runtime: bool, missing: Sequence[str]) -> list[PlanStep]:
    if has_runtime:
        return [_runtime_step(Action.SAME, runtime, "already on the device")]
    if runtime.kind is RuntimeKind.INSTALLED:
        reason = f"the device's own Python, if it has a TFLite runtime: {runtime.reason}"
        return [_runtime_step(Action.CREATE, runtime, reason)]
    if runtime.kind is RuntimeKind.NATIVE:
        reason = (
            "benchmark_model: a release is only seen to load and run, its outputs are not checked "
            f"({runtime.reason})"
        )
    else:
        reason = f"built from {len(runtime.files)} wheels, then tested"
    blobs = [
        PlanStep(
            action=Action.CREATE,
            part=Component.BLOB,
            subject=file.name,
            reason=f"for runtime {runtime.digest[:12]}",
            size_bytes=file.size_bytes,
            key=file.sha256,
        )
        for file in runtime.files
        if file.sha256 in set(missing)
    ]
    return [*blobs, _runtime_step(Action.CREATE, runtime, "; ".join([reason, *runtime.rejected]))]


def _runtime_step(action: Action, runtime: RuntimeSpec, reason: str) -> PlanStep:
    key = runtime.digest
    return PlanStep(action=action, part=Component.RUNTIME, subject=key[:12], reason=reason, key=key)


def _blob_steps(manifest: Manifest, missing: Sequence[str]) -> list[PlanStep]:
    absent = set(missing)
    steps: dict[str, PlanStep] = {}
    for name, file in manifest.files.items():
        present = file.sha256 not in absent
        steps.setdefault(
            file.sha256,
            PlanStep(
                action=Action.SAME if present else Action.CREATE,
                part=Component.BLOB,
                subject=name,
                reason="already on the device" if present else "not on the device",
                size_bytes=0 if present else file.size_bytes,
                key=file.sha256,
            ),
        )
    return list(steps.values())


def _release_step(serving: ModelStatus, release: str, current: bool, model: str) -> PlanStep:
    before = serving.current
    if current:
        action, reason = Action.SAME, "serves already"
    elif before is None:
        action, reason = Action.CREATE, "the first release of this model on the device"
    elif before == release:
        damaged = release in serving.damaged
        reason = "its files on the device are damaged" if damaged else "the same release on another runtime"
        action = Action.CHANGE
    else:
        action, reason = Action.CHANGE, f"replaces {before[:12]}"
    subject = f"{model} {release[:12]}"
    return PlanStep(action=action, part=Component.RELEASE, subject=subject, reason=reason, key=release)


def edgetpu_problem(facts: Facts) -> str | None:
    """Return why a device cannot run a model that was compiled for the Edge TPU; None where it can."""
    tpu = facts.edgetpu
    if tpu is None:
        missing = "it has neither libedgetpu nor an accelerator"
    elif not tpu.loads:
        missing = f"libedgetpu does not load: {tpu.problem}"
    elif not tpu.devices:
        missing = "no accelerator is connected"
    else:
        return None
    return (
        f"its model is compiled for the Edge TPU, and {missing}; with the model for the CPU in the bundle it "
        "would serve there: `edgeq bundle MODEL --golden-from INT8 --with-cpu -o FILE`"
    )


def _device_steps(facts: Facts, device: Device, manifest: Manifest, needs_edgetpu: bool) -> list[PlanStep]:
    """Return the blocked step for a bundle that is for another kind of device, or for other devices."""
    kinds, devices = manifest.requires.kinds, manifest.requires.devices
    if kinds and device.kind.value not in kinds:
        reason = f"made for {', '.join(kinds)}; the device is {device.kind.value}"
        return [_blocked(manifest.model, reason, "EQ503")]
    if devices and facts.device_id not in devices:
        shown = ", ".join(devices[:4]) + (", ..." if devices[4:] else "")
        reason = (
            f"made for the devices {shown}; this one is {facts.device_id}: "
            f"`edgeq bundle MODEL -o FILE --for {device.name}`"
        )
        return [_blocked(manifest.model, reason, "EQ539")]
    problem = edgetpu_problem(facts) if needs_edgetpu else None
    return [_blocked(manifest.model, problem, "EQ560")] if problem is not None else []


def _check_space(
    facts: Facts, steps: list[PlanStep], runtime: RuntimeSpec, manifest: Manifest
) -> list[PlanStep]:
    """Put a blocked step first when the device has too little free space."""
    send_bytes = sum(step.size_bytes for step in steps if step.part is Component.BLOB)
    builds = any(step.part is Component.RUNTIME and step.action is Action.CREATE for step in steps)
    unpacked_bytes = _UNPACKED_RATIO * runtime.size_bytes if builds else 0
    needed_bytes = send_bytes + unpacked_bytes + max(manifest.requires.free_bytes, _RESERVE_BYTES)
    if needed_bytes <= facts.free_bytes:
        return steps
    reason = f"needs {format_size(needed_bytes)} free, the device has {format_size(facts.free_bytes)}"
    return [_blocked("space", reason, "EQ501"), *steps]


def _blocked(subject: str, reason: str, code: str) -> PlanStep:
    return PlanStep(action=Action.BLOCKED, part=Component.RELEASE, subject=subject, reason=reason, code=code)
