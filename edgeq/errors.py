"""Error tree: the failures that a user can meet, with code, exit status and whether a retry can help.

EdgeqError               EQ900  exit 1   a failure that has no class of its own
|- UsageError            EQ1xx  exit 2   nothing was started: an argument, a settings file, a missing extra
|  `- ToolMissing        EQ606  exit 2   a program of this machine is missing
|- DataError             EQ2xx  exit 1   calibration or evaluation data
|- ModelError            EQ3xx  exit 1   a model or its conversion
|- TransportError        EQ4xx  exit 1   the connection to a device
|  `- HostKeyRevoked     EQ607  exit 1   known_hosts revokes the host key of a jump host
|- DeviceError           EQ5xx  exit 1   the device or its agent
|- BundleError           EQ60x  exit 1   a bundle or a key
|- StoreError            EQ61x  exit 1   the local store
|- DiskRefused           EQ62x  exit 1   a file or folder of this machine
|- GateError             EQ7xx  exit 3   a limit does not hold
|  |- RolloutPaused      EQ824  exit 3   the rollout needs approval
|  `- NotJustified       EQ833  exit 3   the data of an experiment do not justify the decision
|- SomeDevicesFailed     EQ80x  exit 4   some devices failed; the others are done
|- RolloutError          EQ82x  exit 1   a rollout cannot start or continue
|- ExperimentError       EQ83x  exit 1   an experiment cannot start, continue or end
`- InternalError         EQ901  exit 70  a bug in edgeq

A class that is not listed has a code in the range of its nearest listed ancestor. The converters (EQ2xx,
EQ3xx) and the agent (EQ5xx) define codes of their own, which these classes carry. docs/errors.md lists every
code; a code never changes its meaning. A message is one line: the subject, what was expected, what was got.
The hint names the next command.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Process exit status."""

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
        subject: what failed: a file, a device, an option.
        problem: what is wrong, unless `expected` and `got` say it.
        expected: the valid value.
        got: the actual value.
        hint: the next step, as a command if there is one; default: the class's hint.
        code: replaces the class's code; an error of the agent or of the converters keeps its own code.
    """

    code: ClassVar[str] = "EQ900"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED
    transient: ClassVar[bool] = False
    # The hint of a class, used when the code that raises has no better one. Every failure has a hint.
    usual_hint: ClassVar[str] = "run the same command with --debug to see the traceback"

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
        """The message: one line, without code and hint; text of a device in it cannot control a terminal."""
        parts = [self.problem] if self.problem else []
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        text = f"{self.subject}: {', '.join(parts)}" if parts else self.subject
        if text.isprintable():
            return text
        from edgeq.text import one_line  # `edgeq --help` needs none of it

        return one_line(" ".join(text.split()))

    def to_dict(self) -> dict[str, object]:
        """Return the error as `--json` prints it under `error`."""
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
    """An argument is invalid; nothing was started."""

    code = "EQ101"
    usual_hint = "run the command with -h to see its options and examples"
    exit_status = ExitStatus.USAGE


class ConfigError(UsageError):
    """A settings file (devices.toml, a blueprint) is invalid."""

    code = "EQ102"
    usual_hint = "correct the file, then run the same command again"


class UnknownName(UsageError):
    """No device, model or command has that name."""

    code = "EQ103"
    usual_hint = "`edgeq devices list` shows the devices; `edgeq status` shows the models"


class MissingExtra(UsageError):
    """The command needs an optional part of edgeq that is not installed."""

    code = "EQ104"
    usual_hint = "pip install 'edgeq[all]'"


class ToolMissing(UsageError):
    """A program that the settings name is not installed on this machine."""

    code = "EQ606"
    usual_hint = "install it, or change the device's entry in devices.toml"


class BlueprintError(ConfigError):
    """A blueprint has an unknown key or an impossible value."""

    code = "EQ110"
    usual_hint = "see docs/blueprint.md, then run `edgeq check BLUEPRINT`"


class DataError(EdgeqError):
    """Calibration or evaluation data cannot be used; the other EQ2xx codes come from the converters."""

    code = "EQ200"
    usual_hint = "correct the data (docs/data.md describes the formats), then run the same command again"


class ModelError(EdgeqError):
    """A model cannot be read or converted; the other EQ3xx codes come from the converters."""

    code = "EQ300"
    usual_hint = "`edgeq convert -h` lists the model formats"


class TransportError(EdgeqError):
    """The connection to a device failed."""

    code = "EQ400"
    usual_hint = "`edgeq doctor DEVICE` checks the connection and the device"


class Unreachable(TransportError):
    """The address does not answer."""

    code = "EQ401"
    transient = True


class HostKeyMismatch(TransportError):
    """The host key of the device differs from the one that was pinned at enrolment."""

    code = "EQ402"


class AuthenticationFailed(TransportError):
    """The device rejected the login; never retried."""

    code = "EQ403"


class DeviceTimeout(TransportError):
    """The device did not answer within the deadline."""

    code = "EQ404"
    transient = True


class LinkLost(TransportError):
    """The connection was lost during the command."""

    code = "EQ405"
    transient = True


class SourceChanged(TransportError):
    """A local file changed since its digest was computed; nothing was sent."""

    code = "EQ406"
    usual_hint = "make the bundle again, or delete the cached file; then run the same command again"


class HostKeyUnknown(TransportError):
    """known_hosts has no host key for a jump host."""

    code = "EQ407"


class CommandNotRun(TransportError):
    """The login works, but the login shell or the SSH server does not run the command."""

    code = "EQ408"
    usual_hint = (
        "check the shell of the account (nologin?), its start files (`exit` or `exec` in ~/.bashrc), "
        "and ForceCommand and `command=` of its SSH server"
    )


class ShellHangs(DeviceTimeout):
    """The login works, but the login shell does not start the command in time; never retried."""

    code = "EQ409"
    transient = False


class HostKeyRevoked(TransportError):
    """known_hosts revokes the host key of a jump host."""

    code = "EQ607"


class DeviceError(EdgeqError):
    """The device or its agent failed; the agent's own EQ5xx code is kept."""

    code = "EQ500"
    usual_hint = "`edgeq doctor DEVICE` checks the device; `edgeq status DEVICE` shows its models"


class DeviceOutOfSpace(DeviceError):
    """The device does not have enough free space."""

    code = "EQ501"
    usual_hint = "free some space on the device; `edgeq prune --on DEVICE` deletes what nothing there uses"


class AgentProtocolError(DeviceError):
    """The agent sent an invalid response."""

    code = "EQ502"


class DeviceUnsupported(DeviceError):
    """The device cannot run the model: no Python, no runtime wheel, or another kind of device."""

    code = "EQ503"


class HealthCheckFailed(DeviceError):
    """A release failed its health checks on the device; the previous release still serves."""

    code = "EQ504"


class DeviceBusy(DeviceError):
    """Another command is changing the device."""

    code = "EQ508"
    transient = True


class CommandFailed(DeviceError):
    """A command that `edgeq exec` ran on a device ended with another exit status than 0."""

    code = "EQ570"
    usual_hint = "run a line for the device's shell as one word: `edgeq exec DEVICE -- 'a | b'`"


class BundleError(EdgeqError):
    """A bundle cannot be read or made."""

    code = "EQ600"
    usual_hint = "make the bundle again with `edgeq bundle MODEL -o FILE`"


class BundleAltered(BundleError):
    """A bundle's content does not match its digests."""

    code = "EQ601"


class SigningKeyError(BundleError):
    """A signing key cannot be made, read or used."""

    code = "EQ602"
    usual_hint = "`edgeq keys list` shows the keys of the workspace; `edgeq keys new NAME` makes one"


class TrustDocumentError(BundleError):
    """The trust document cannot be read, signed or changed; EQ609: a change would lock the fleet out."""

    code = "EQ608"
    usual_hint = "`edgeq keys show` shows the trust document of the workspace"


class SignatureInvalid(BundleError):
    """A bundle's signature is missing, truncated, or does not match its manifest."""

    code = "EQ603"
    usual_hint = "make the bundle again with `edgeq bundle MODEL -o FILE`, which signs it"


class UnknownSigner(BundleError):
    """A bundle is signed, but with no key that this workspace knows."""

    code = "EQ604"
    usual_hint = "pass the publisher's public key: `edgeq bundle verify FILE --key KEY.pub`"


class StoreError(EdgeqError):
    """The local store cannot be used."""

    code = "EQ610"
    usual_hint = "`edgeq doctor --local` checks the store, .edgeq/store.db in the workspace"


class AuditBroken(StoreError):
    """The audit log was altered or is damaged."""

    code = "EQ612"
    usual_hint = "keep the workspace as it is, and compare it with a backup"


class DiskRefused(EdgeqError):
    """This machine cannot read or write a file: no space, read-only, no permission, or a failing disk."""

    code = "EQ620"
    usual_hint = "give this user write permission there, or choose another --workspace or -o"


class GateError(EdgeqError):
    """A limit of the blueprint does not hold."""

    code = "EQ700"
    usual_hint = "relax the limit in the blueprint, or convert a better variant"
    exit_status = ExitStatus.GATE


class RolloutAborted(GateError):
    """A rollout's abort rule fired; no further device is changed."""

    code = "EQ710"
    usual_hint = "`edgeq rollout show ROLLOUT` lists the devices that failed, with the reasons"


class RolloutPaused(GateError):
    """The rollout is paused and needs operator approval."""

    code = "EQ824"
    usual_hint = "`edgeq rollout resume ROLLOUT` starts the next stage"


class SomeDevicesFailed(EdgeqError):
    """Some devices failed; the others are done."""

    code = "EQ801"
    usual_hint = (
        "check the failed devices with `edgeq doctor DEVICE`, then run the same command again for them"
    )
    exit_status = ExitStatus.SOME_DEVICES_FAILED


class RolloutError(EdgeqError):
    """A rollout cannot start or continue."""

    code = "EQ820"
    usual_hint = "`edgeq rollout list` shows the rollouts"


class RolloutBusy(RolloutError):
    """Another process is running the rollout."""

    code = "EQ821"
    transient = True


class RolloutDamaged(RolloutError):
    """A rollout's journal was changed by another program than edgeq."""

    code = "EQ822"
    usual_hint = "start a new rollout; devices that already serve the release stay as they are"


class ExperimentError(EdgeqError):
    """An experiment cannot start, continue, or end as requested."""

    code = "EQ830"
    usual_hint = "`edgeq ab list` shows the experiments"


class NotJustified(GateError):
    """The data of the experiment do not justify the decision; nothing was changed."""

    code = "EQ833"
    usual_hint = "`edgeq ab status` shows the intervals; --anyway overrides them and is recorded"


class InternalError(EdgeqError):
    """A bug in edgeq."""

    code = "EQ901"
    usual_hint = "please report it, with the log file"
    exit_status = ExitStatus.BUG
