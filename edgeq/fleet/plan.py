"""What a deploy would change on one device: facts and a bundle in, steps out; nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.errors import DeviceError, DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes.wheels import Runtime
from edgeq.units import format_size
from edgeq.values import Device
from edgeq_agent import wire

# A wheel is a zip; unpacked it is about three times as large, and the wheel itself stays as a blob.
_UNPACKED = 3
# Room that a device keeps for its journal, telemetry and the system.
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


class Part(StrEnum):
    """What a step is about."""

    AGENT = "agent"
    BLOB = "blob"
    RUNTIME = "runtime"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a plan.

    Attributes:
        subject: what it is about, such as `model.tflite`.
        reason: why it is needed, not needed, or blocked.
        size_bytes: what would be sent for it.
        key: the blob's SHA-256, the runtime's digest, the release's id.
        code: the error's code where it is blocked.
    """

    action: Action
    part: Part
    subject: str
    reason: str
    size_bytes: int = 0
    key: str = ""
    code: str = ""

    @property
    def text(self) -> str:
        """The line for people."""
        size = f" ({format_size(self.size_bytes)})" if self.size_bytes else ""
        return f"{self.action.sign} {self.part.value:<8} {self.subject}{size}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
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
    """All that a deploy would do to one device, in order."""

    device: str
    model: str
    release: str
    steps: tuple[Step, ...]

    @property
    def to_do(self) -> tuple[Step, ...]:
        """The steps that change something. The agent file is there by now: without it nothing is known."""
        changes = (Action.CREATE, Action.CHANGE)
        return tuple(s for s in self.steps if s.action in changes and s.part is not Part.AGENT)

    @property
    def is_empty(self) -> bool:
        """Whether everything is as the bundle wants it."""
        return not self.to_do and not self.blocked

    @property
    def blocked(self) -> tuple[Step, ...]:
        """The steps that cannot be done."""
        return tuple(step for step in self.steps if step.action is Action.BLOCKED)

    @property
    def send_bytes(self) -> int:
        """What applying it sends."""
        return sum(step.size_bytes for step in self.to_do)

    def check(self) -> None:
        """Raise the error of the first blocked step.

        Raises:
            DeviceOutOfSpace, DeviceUnsupported: by the step's code.
        """
        for step in self.blocked:
            kinds: dict[str, type[DeviceError]] = {"EQ501": DeviceOutOfSpace, "EQ503": DeviceUnsupported}
            kind = kinds.get(step.code, DeviceError)
            raise kind(f"{self.device}: {step.subject}", step.reason, code=step.code or None)


def plan(
    facts: Facts,
    status: Mapping[str, Any],
    missing: Sequence[str],
    bundle_manifest: Mapping[str, Any],
    runtime: Runtime,
    *,
    device: Device,
) -> Plan:
    """Return what must be done so that the device serves the bundle.

    Args:
        status: the agent's `status`.
        missing: which of the bundle's and the runtime's blobs the device does not have.
        runtime: what the model shall run on there.
    """
    model, release = str(bundle_manifest["model"]), wire.digest(dict(bundle_manifest))
    serving = status.get("models", {}).get(model, {})
    has_runtime = runtime.digest in {known.digest for known in facts.runtimes}
    current = serving.get("current") == release and serving.get("runtime") in (None, runtime.digest)
    current = current and has_runtime
    steps = [
        _agent_step(facts),
        *_runtime_steps(runtime, has_runtime, missing),
        *_blob_steps(bundle_manifest, missing),
        _release_step(serving, release, current, bundle_manifest),
    ]
    if not current:
        steps = [*_kind_steps(device, bundle_manifest), *steps]
        steps = _with_space(facts, steps, runtime, bundle_manifest)
    return Plan(device=device.name, model=model, release=release, steps=tuple(steps))


def _agent_step(facts: Facts) -> Step:
    reasons = {
        "create": "placed to read the device's facts; it serves nothing yet",
        "change": "its content on the device was not ours; placed anew",
        "same": "there already",
    }
    return Step(
        action=Action(facts.agent.action),
        part=Part.AGENT,
        subject=facts.agent.sha256[:12],
        reason=reasons[facts.agent.action],
        size_bytes=facts.agent.size_bytes,
        key=facts.agent.sha256,
    )


def _runtime_steps(runtime: Runtime, has_runtime: bool, missing: Sequence[str]) -> list[Step]:
    subject = runtime.digest[:12]
    if has_runtime:
        return [_runtime_step(Action.SAME, runtime, "there already")]
    made = f"made of {len(runtime.wheels)} wheels, and proved"
    if runtime.native is not None:
        made = "benchmark_model alone: a release is seen to load and run, and not what it answers"
        made += f" ({runtime.reason})"
    elif not runtime.wheels:
        reason = f"the device's own Python, if it has one: {runtime.reason}"
        return [_runtime_step(Action.CREATE, runtime, reason)]
    blobs = [
        Step(
            action=Action.CREATE,
            part=Part.BLOB,
            subject=wheel.name,
            reason=f"for runtime {subject}",
            size_bytes=wheel.size_bytes,
            key=wheel.sha256,
        )
        for wheel in runtime.files
        if wheel.sha256 in set(missing)
    ]
    return [
        *blobs,
        _runtime_step(Action.CREATE, runtime, "; ".join([made, *runtime.passed])),
    ]


def _runtime_step(action: Action, runtime: Runtime, reason: str) -> Step:
    key = runtime.digest
    return Step(action=action, part=Part.RUNTIME, subject=key[:12], reason=reason, key=key)


def _blob_steps(manifest: Mapping[str, Any], missing: Sequence[str]) -> list[Step]:
    lacking = set(missing)
    steps: dict[str, Step] = {}
    for name, entry in manifest["files"].items():
        there = entry["sha256"] not in lacking
        steps.setdefault(
            entry["sha256"],
            Step(
                action=Action.SAME if there else Action.CREATE,
                part=Part.BLOB,
                subject=name,
                reason="there already" if there else "not on the device",
                size_bytes=0 if there else entry["size_bytes"],
                key=entry["sha256"],
            ),
        )
    return list(steps.values())


def _release_step(
    serving: Mapping[str, Any], release: str, current: bool, manifest: Mapping[str, Any]
) -> Step:
    before = serving.get("current")
    if current:
        action, reason = Action.SAME, "serves already"
    elif before is None:
        action, reason = Action.CREATE, "the first release of this model here"
    elif before == release:
        action, reason = Action.CHANGE, "the same release on another runtime"
    else:
        action, reason = Action.CHANGE, f"replaces {str(before)[:12]}"
    subject = f"{manifest['model']} {release[:12]}"
    return Step(action=action, part=Part.RELEASE, subject=subject, reason=reason, key=release)


def _kind_steps(device: Device, manifest: Mapping[str, Any]) -> list[Step]:
    kinds = list(manifest.get("requires", {}).get("kinds", ()))
    if not kinds or device.kind.value in kinds:
        return []
    reason = f"made for {', '.join(kinds)}; the device is {device.kind.value}"
    return [_blocked(f"{manifest['model']}", reason, "EQ503")]


def _with_space(facts: Facts, steps: list[Step], runtime: Runtime, manifest: Mapping[str, Any]) -> list[Step]:
    sends = sum(step.size_bytes for step in steps if step.part is Part.BLOB)
    builds = any(step.part is Part.RUNTIME and step.action is Action.CREATE for step in steps)
    unpacked = _UNPACKED * runtime.size_bytes if builds else 0
    wanted = int(manifest.get("requires", {}).get("free_bytes", 0))
    needed = sends + unpacked + max(wanted, _RESERVE_BYTES)
    if needed <= facts.free_bytes:
        return steps
    reason = f"needs {format_size(needed)} free, the device has {format_size(facts.free_bytes)}"
    return [_blocked("space", reason, "EQ501"), *steps]


def _blocked(subject: str, reason: str, code: str) -> Step:
    return Step(action=Action.BLOCKED, part=Part.RELEASE, subject=subject, reason=reason, code=code)
