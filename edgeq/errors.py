"""The error tree: every failure that a user can meet, its code, exit status and whether a retry can help.

EdgeqError
|- UsageError          EQ1xx  exit 2  nothing was started: an argument, a file of settings, a missing extra
|- DataError           EQ2xx  exit 1  calibration or evaluation data
|- ModelError          EQ3xx  exit 1  a model or its conversion
|- TransportError      EQ4xx  exit 1  the way to a device
|- DeviceError         EQ5xx  exit 1  the device or its agent
|- BundleError         EQ60x  exit 1  a bundle, or a key
|- StoreError          EQ61x  exit 1  a stored record
|- DiskRefused         EQ620  exit 1  a file of this machine
|- GateError           EQ7xx  exit 3  a gate said no
|- SomeDevicesFailed   EQ801  exit 4  the rest was done
|- RolloutError        EQ82x  exit 1  a rollout cannot begin or go on
|- ExperimentError     EQ83x  exit 1  an experiment cannot begin, go on, or end so
`- InternalError       EQ901  exit 70 a bug in edgeq

One line says what, of which subject, expected and got; the hint names the next command.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """What the process tells its caller."""

    OK = 0
    FAILED = 1
    USAGE = 2
    GATE = 3
    SOME_DEVICES_FAILED = 4
    BUG = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class EdgeqError(Exception):
    """Base of every expected failure.

    Args:
        subject: what the failure is about: a file, a device, an option.
        problem: what is wrong, when expected/got do not say it.
        expected: what would have been right.
        got: what was found.
        hint: the next thing to do, as a command where there is one; else the class's own.
        code: overrides the class's code (an error that the agent or the converters reported keeps theirs).
    """

    code: ClassVar[str] = "EQ900"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED
    transient: ClassVar[bool] = False
    # Where a place that raises knows nothing better: every failure says what to do next.
    usual_hint: ClassVar[str] = "run the command again with --debug"

    def __init__(
        self,
        subject: str,
        problem: str | None = None,
        *,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        self.subject = subject
        self.problem = problem
        self.expected = expected
        self.got = got
        self.hint = hint or self.usual_hint
        self.reported_code = code or self.code
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The one line without code and hint."""
        parts = [self.problem] if self.problem else []
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        return f"{self.subject}: {', '.join(parts)}" if parts else self.subject

    def to_dict(self) -> dict[str, object]:
        """The error as it appears under `error` in `--json` output."""
        return {
            "code": self.reported_code,
            "message": self.message,
            "subject": self.subject,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
            "transient": self.transient,
            "exit_status": int(self.exit_status),
        }


class UsageError(EdgeqError):
    """An argument is wrong; nothing was started."""

    code = "EQ101"
    usual_hint = "add -h to the command: it lists the options, with examples"
    exit_status = ExitStatus.USAGE


class ConfigError(UsageError):
    """A settings file (devices.toml, blueprint.toml) cannot be used as it is."""

    code = "EQ102"
    usual_hint = "correct the file, then run the same command again"


class UnknownName(UsageError):
    """A device, model or command of that name is not known."""

    code = "EQ103"
    usual_hint = "`edgeq devices list` shows the devices, `edgeq status` the models"


class MissingExtra(UsageError):
    """A part of edgeq that is not installed is needed."""

    code = "EQ104"
    usual_hint = "pip install 'edgeq[all]'"


class ToolMissing(UsageError):
    """A program of this machine that was asked for is not there."""

    code = "EQ606"
    usual_hint = "install it, or choose another way in devices.toml"


class BlueprintError(ConfigError):
    """A blueprint says something that cannot hold or is not known."""

    code = "EQ110"
    usual_hint = "see docs/blueprint.md, then run `edgeq check BLUEPRINT`"


class DataError(EdgeqError):
    """Calibration or evaluation data cannot be used; subclasses' codes come from edgeq_converters.errors."""

    code = "EQ200"
    usual_hint = "docs/data.md says what is read; correct the data, then run the same command again"


class ModelError(EdgeqError):
    """A model or its conversion; codes below EQ300 come from edgeq_converters.errors."""

    code = "EQ300"
    usual_hint = "`edgeq convert -h` names the models that are read"


class TransportError(EdgeqError):
    """The way to a device failed."""

    code = "EQ400"
    usual_hint = "`edgeq doctor DEVICE` says what can be reached"


class Unreachable(TransportError):
    """Nothing answers at the address."""

    code = "EQ401"
    transient = True


class HostKeyMismatch(TransportError):
    """The device shows another host key than the one pinned at enrolment."""

    code = "EQ402"


class AuthenticationFailed(TransportError):
    """The device refuses the key; never retried."""

    code = "EQ403"


class DeviceTimeout(TransportError):
    """The device stopped answering within the deadline."""

    code = "EQ404"
    transient = True


class LinkLost(TransportError):
    """The connection ended in the middle."""

    code = "EQ405"
    transient = True


class SourceChanged(TransportError):
    """A file that is to be sent is not what its digest says any more."""

    code = "EQ406"
    usual_hint = "make the bundle anew, or remove the cached file, then run the same command again"


class HostKeyUnknown(TransportError):
    """A machine on the way to a device has no host key in known_hosts."""

    code = "EQ407"


class HostKeyRevoked(TransportError):
    """A machine on the way to a device shows a host key that known_hosts revokes."""

    code = "EQ607"


class DeviceError(EdgeqError):
    """The device or its agent refused; the agent's own code is kept."""

    code = "EQ500"
    usual_hint = "`edgeq doctor DEVICE` says what is there; `edgeq status DEVICE` what serves"


class DeviceOutOfSpace(DeviceError):
    """The device has not enough free space."""

    code = "EQ501"


class AgentProtocolError(DeviceError):
    """The agent answered something that is no answer."""

    code = "EQ502"


class DeviceUnsupported(DeviceError):
    """The device cannot run what was asked: no Python, no runtime wheel, wrong class."""

    code = "EQ503"


class HealthCheckFailed(DeviceError):
    """A release did not pass its checks on the device; the one before it still serves."""

    code = "EQ504"


class DeviceBusy(DeviceError):
    """Another command changes the device just now."""

    code = "EQ508"
    transient = True


class BundleError(EdgeqError):
    """A bundle cannot be read or made."""

    code = "EQ600"
    usual_hint = "make the bundle again with `edgeq bundle`"


class BundleAltered(BundleError):
    """A bundle's content does not match its digests."""

    code = "EQ601"


class SigningKeyError(BundleError):
    """A signing key cannot be made, read or used."""

    code = "EQ602"
    usual_hint = "`edgeq keys list` shows the workspace's keys, `edgeq keys new` makes one"


class SignatureInvalid(BundleError):
    """A bundle's signature is missing, cut short, or does not fit its manifest."""

    code = "EQ603"
    usual_hint = "make the bundle again with `edgeq bundle`, which signs it"


class UnknownSigner(BundleError):
    """A bundle is signed, but by nobody who is known here."""

    code = "EQ604"
    usual_hint = "give the publisher's public key: `edgeq bundle verify FILE --key KEY.pub`"


class StoreError(EdgeqError):
    """The local store cannot be used."""

    code = "EQ610"
    usual_hint = "the store is .edgeq/store.db in the workspace; `edgeq doctor --local` looks at it"


class DiskRefused(EdgeqError):
    """A file or folder of this machine cannot be used: no space, read-only, no right, or a failing disk."""

    code = "EQ620"
    usual_hint = "let this user write there, or choose another --workspace or -o"


class GateError(EdgeqError):
    """A limit of the blueprint does not hold."""

    code = "EQ700"
    usual_hint = "widen the limit, or find a better variant"
    exit_status = ExitStatus.GATE


class RolloutAborted(GateError):
    """A rollout's abort rule fired; no further device is touched."""

    code = "EQ710"
    usual_hint = "`edgeq rollout show ROLLOUT` says which devices failed and why"


class RolloutPaused(GateError):
    """A rollout waits for somebody's word before its next stage."""

    code = "EQ824"
    usual_hint = "`edgeq rollout resume ROLLOUT` goes on"


class SomeDevicesFailed(EdgeqError):
    """Some devices failed; the others are done."""

    code = "EQ801"
    usual_hint = "the others are done; run the same command again for those that failed"
    exit_status = ExitStatus.SOME_DEVICES_FAILED


class RolloutError(EdgeqError):
    """A rollout cannot begin or go on."""

    code = "EQ820"
    usual_hint = "`edgeq rollout list` shows the rollouts"


class RolloutBusy(RolloutError):
    """Another controller drives the rollout just now."""

    code = "EQ821"
    transient = True


class RolloutDamaged(RolloutError):
    """A rollout's journal was changed by something else than edgeq."""

    code = "EQ822"
    usual_hint = "begin a new rollout: devices that serve the release already are left as they are"


class ExperimentError(EdgeqError):
    """An experiment cannot begin, go on, or end so."""

    code = "EQ830"
    usual_hint = "`edgeq ab list` shows the experiments"


class NotJustified(GateError):
    """The data of an experiment do not justify the decision; nothing was decided."""

    code = "EQ833"
    usual_hint = "`edgeq ab status` shows the intervals; --anyway decides all the same, and is recorded"


class InternalError(EdgeqError):
    """A bug in edgeq."""

    code = "EQ901"
    usual_hint = "please report it"
    exit_status = ExitStatus.BUG
