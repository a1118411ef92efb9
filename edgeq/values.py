"""Frozen values that cross the layers of edgeq."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class DeviceKind(StrEnum):
    """The platform profile of a device."""

    RASPBERRY_PI = "raspberry-pi"
    CORAL = "coral"
    ANDROID = "android"
    LINUX = "linux"


class TransportKind(StrEnum):
    """What carries the commands to a device."""

    PARAMIKO = "paramiko"
    OPENSSH = "openssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One line of the inventory: how to reach a device and what it is.

    Attributes:
        host_key: the pinned host key as in `known_hosts`: `ssh-ed25519 AAAA...`.
        identity: a private key file, or None for the agent and the default keys.
        python: the interpreter on the device that starts the agent.
        home: the agent's folder, relative to the login folder unless absolute.
        jump: machines on the way, `[USER@]HOST[:PORT]` with commas; None leaves it to the ssh configuration.
        native: a `benchmark_model` program for the device, where no Python runtime fits it.
        ssh_config: whether `~/.ssh/config` is honoured, or the file that is read in its place.
        transport: `openssh` runs the `ssh` program of this machine.
        jump_host_key: the pinned host keys of the machines on the way, with commas, in the order of the way;
            None leaves them to known_hosts.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What evaluating a model on data gave.

    Attributes:
        samples: how many samples were evaluated.
        accuracy: share of samples whose largest output is the label, 0..1; None without labels.
        agreement: share of samples with the reference's largest output, 0..1; None without a reference.
        output_sqnr_db: signal to quantization noise of the dequantized outputs against the
            reference's, in dB; None without a reference, infinity when the outputs are equal.
    """

    samples: int
    accuracy: float | None = None
    agreement: float | None = None
    output_sqnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of the model: a file, what it is, and how good it is."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    metrics: Metrics
