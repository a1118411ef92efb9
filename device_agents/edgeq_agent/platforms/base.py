"""The protocol of a platform: what the agent asks of the board and the system that it runs on.

Every method reads below the platform's `root`, so that a tree of files tests it without the board. A figure
that cannot be measured is absent with a reason; it is never estimated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:  # the host imports this module, and only type checkers need the name
    from edgeq_agent.wire import Json

T = TypeVar("T")

# What can start the agent when the device starts.
SYSTEMD_USER = "systemd-user"
SYSTEMD_SYSTEM = "systemd-system"
TERMUX_BOOT = "termux-boot"
PLAIN = "plain"


@dataclass(frozen=True)
class Reading(Generic[T]):
    """A value with its source, or None with the reason why it cannot be read."""

    value: T | None
    source: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Throttling:
    """What reduced the processor's frequency.

    Attributes:
        now: causes that are active at this moment.
        since_boot: causes that were active at some time since boot.
        count: how often it happened since boot, on systems that count and do not name causes.
    """

    now: tuple[str, ...] = ()
    since_boot: tuple[str, ...] = ()
    count: int | None = None

    def to_json(self) -> Json:
        """Return {count}, or {now, since_boot}."""
        if self.count is not None:
            return {"count": self.count}
        return {"now": list(self.now), "since_boot": list(self.since_boot)}


class Libc(NamedTuple):
    """The C library; its version is None where the library does not report one."""

    name: str
    version: str | None = None


class Platform(ABC):
    """One kind of device.

    Args:
        root: the folder that the system's files are read below.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    @staticmethod
    @abstractmethod
    def matches(root: str) -> bool:
        """Return whether the device is of this kind."""

    @abstractmethod
    def board_model(self) -> str | None:
        """Return the board's own name ("Raspberry Pi 4 Model B Rev 1.4"), or None."""

    @abstractmethod
    def mendel_version(self) -> str | None:
        """Return the release of Mendel Linux, the Coral boards' distribution ("eagle"); None elsewhere."""

    @abstractmethod
    def libc(self) -> Libc:
        """Return the C library of the running interpreter."""

    @abstractmethod
    def library_folders(self) -> tuple[str, ...]:
        """Return glob patterns, relative to the root, of the folders that hold shared libraries."""

    @abstractmethod
    def memory_bytes(self) -> int | None:
        """Return the installed memory in bytes."""

    @abstractmethod
    def peak_memory_bytes(self) -> Reading[int]:
        """Return the peak resident memory of this process in bytes."""

    @abstractmethod
    def temperature_c(self) -> Reading[float]:
        """Return the processor's temperature in degrees Celsius."""

    @abstractmethod
    def frequency_hz(self) -> Reading[int]:
        """Return the processor's current frequency in Hz."""

    @abstractmethod
    def governor(self) -> Reading[str]:
        """Return the frequency governor ("performance", "ondemand")."""

    @abstractmethod
    def throttling(self) -> Reading[Throttling]:
        """Return whether the processor was throttled."""

    @abstractmethod
    def energy_source(self) -> Reading[str]:
        """Return the sensor that measures energy or power, with its class: hw_counter or hw_sampled."""

    @abstractmethod
    def load_1min(self) -> Reading[float]:
        """Return the load average over one minute."""

    @abstractmethod
    def cpu_pressure_us(self) -> Reading[int]:
        """Return the time since boot in which some task waited for a processor, in microseconds."""

    @abstractmethod
    def autostart_kinds(self) -> tuple[str, ...]:
        """Return the kinds of autostart that this platform knows; the first that is possible is used."""

    @abstractmethod
    def app_prefix(self) -> str | None:
        """Return the folder of the app that has the user's programs (Termux's $PREFIX); None elsewhere."""
