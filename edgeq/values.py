"""Frozen values that cross the layers of edgeq: devices, metrics and variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

# The device reports its kind with the same names; the agent has the one definition.
from edgeq_agent.platforms.registry import DeviceKind as DeviceKind
from edgeq_converters.values import OutputSqnr


class TransportKind(StrEnum):
    """SSH implementation that carries the commands to a device."""

    PARAMIKO = "paramiko"
    OPENSSH = "openssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One entry of the inventory: how to connect to a device and what it is.

    Attributes:
        host_key: the pinned host key as in `known_hosts`: `ssh-ed25519 AAAA...`.
        identity: a private key file; None for the SSH agent and the default keys.
        python: the interpreter on the device that runs the agent.
        home: the agent's folder; a relative path starts at the login folder.
        jump: jump hosts, `[USER@]HOST[:PORT]` separated by commas; None uses the ssh configuration.
        native: a `benchmark_model` program for a device that no Python runtime fits.
        ssh_config: whether to read `~/.ssh/config`, or the path of the file to read instead.
        transport: `paramiko`, or `openssh` for the `ssh` program of this machine.
        jump_host_key: the pinned host keys of the jump hosts, in their order, separated by commas; None uses
            known_hosts.
        device_id: the id that the agent gave the device; None for an entry from before ids were kept.
        workspace: whose inventory has the device; its store gets the audit. None is the default one.
    """

    name: str
    host: str
    port: int = 22
    user: str
    kind: DeviceKind = DeviceKind.LINUX
    labels: Mapping[str, str] = field(default_factory=dict)
    host_key: str
    identity: Path | None = None
    python: str = "python3"
    home: str = ".edgeq"
    jump: str | None = None
    native: Path | None = None
    ssh_config: bool | Path = True
    transport: TransportKind = TransportKind.PARAMIKO
    jump_host_key: str | None = None
    device_id: str | None = None
    workspace: Path | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Result of the evaluation of a model on data.

    Attributes:
        samples: number of samples.
        accuracy: share of samples whose largest output is the label, 0..1; None without labels.
        agreement: share of the reference's answers that the model gives, 0..1; None without a reference, and
            where the outputs hold no answers (`edgeq.evaluation.agreement`).
        agreement_of: what is compared: `classes`, `boxes` or `mask`; None where nothing is.
        output_sqnr_db: signal-to-quantization-noise ratio of the dequantized outputs to the reference's,
            in dB; None without a reference, infinity if the outputs are equal.
        outputs: this ratio of each output and of its worst slice; empty without a reference.
        useless: in words why the result is useless; None where it is not (`edgeq_converters.metrics`).
        accuracy_ci95, agreement_ci95: Wilson's 95 % interval of the share; None without the share, for an
            agreement of boxes, masks or places, and where samples of one sequence are not independent.
        accuracy_drop: accuracy of the reference minus the model's, -1..1; None without labels or reference.
        accuracy_drop_ci95: Newcombe's 95 % interval for paired samples (`edgeq_converters.intervals`).
        smallest_drop: the smallest drop that so many samples could show; None where they could show none.
    """

    samples: int
    accuracy: float | None = None
    agreement: float | None = None
    agreement_of: str | None = None
    output_sqnr_db: float | None = None
    outputs: tuple[OutputSqnr, ...] = ()
    useless: str | None = None
    accuracy_ci95: tuple[float, float] | None = None
    agreement_ci95: tuple[float, float] | None = None
    accuracy_drop: float | None = None
    accuracy_drop_ci95: tuple[float, float] | None = None
    smallest_drop: float | None = None

    @property
    def worst_sqnr_db(self) -> float | None:
        """The ratio of the worst slice of the worst output, which limits judge; None without a reference."""
        if not self.outputs:
            return self.output_sqnr_db
        return min(each.worst_db for each in self.outputs)

    @property
    def drop_is_shown(self) -> bool:
        """Whether the interval of the drop excludes zero, in either direction."""
        ends = self.accuracy_drop_ci95
        return ends is not None and not ends[0] <= 0 <= ends[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One conversion of a model: its file and its metrics."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    metrics: Metrics
