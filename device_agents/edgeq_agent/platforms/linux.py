"""Any Linux device: the kernel's generic interfaces. The base of the boards that add their own."""

from __future__ import annotations

import os

from edgeq_agent.platforms import sysfs
from edgeq_agent.platforms.base import (
    PLAIN,
    SYSTEMD_SYSTEM,
    SYSTEMD_USER,
    Libc,
    Platform,
    Reading,
    Throttling,
)

_CPU_ZONES = ("cpu", "soc", "x86_pkg", "coretemp", "bcm2835", "mtktscpu", "tsens")
# Some zones report values like 0x7fffffff when their sensor is off.
_LOWEST_MILLIDEGREES, _HIGHEST_MILLIDEGREES = -40000, 200000


class Linux(Platform):
    """A Linux device of no particular kind."""

    @staticmethod
    def matches(root: str) -> bool:
        return True

    def board_model(self) -> str | None:
        return board_model(self.root)

    def mendel_version(self) -> str | None:
        return None

    def libc(self) -> Libc:
        try:
            words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        except (ValueError, OSError):  # musl and bionic do not have this name
            words = []
        if len(words) == 2:
            return Libc(words[0], words[1])
        if any(name.startswith("ld-musl") for name in sysfs.names(self._path("lib"))):
            return Libc("musl")
        return Libc("unknown")

    def library_folders(self) -> tuple[str, ...]:
        return ("lib", "lib/*-linux-gnu*", "usr/lib", "usr/lib/*-linux-gnu*", "usr/local/lib")

    def memory_bytes(self) -> int | None:
        total = sysfs.read_line(self._path("proc/meminfo"), "MemTotal:")
        return int(total.split()[0]) * 1024 if total else None

    def peak_memory_bytes(self) -> Reading[int]:
        peak = sysfs.read_line(self._path("proc/self/status"), "VmHWM:")
        if peak:
            return Reading(int(peak.split()[0]) * 1024, "/proc/self/status VmHWM")
        import resource

        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak_bytes:
            return Reading(peak_bytes, "getrusage ru_maxrss")
        return Reading(None, reason="the kernel does not report a peak")

    def temperature_c(self) -> Reading[float]:
        zones = sysfs.paths(self.root, "sys/class/thermal/thermal_zone*/temp")
        if not zones:
            return Reading(None, reason="the kernel has no thermal zone")
        for path in sorted(zones, key=_cpu_zones_first):
            raw = sysfs.read_integer(path)
            if raw is not None and _LOWEST_MILLIDEGREES < raw < _HIGHEST_MILLIDEGREES:
                return Reading(raw / 1000.0, self._absolute(path))
        return Reading(None, reason="no thermal zone can be read")

    def frequency_hz(self) -> Reading[int]:
        paths = self._cpufreq("scaling_cur_freq")
        for path in paths:
            frequency_khz = sysfs.read_integer(path)
            if frequency_khz is not None and frequency_khz >= 0:
                return Reading(frequency_khz * 1000, self._absolute(path))
        return Reading(None, reason=_no_cpufreq(paths))

    def governor(self) -> Reading[str]:
        paths = self._cpufreq("scaling_governor")
        for path in paths:
            text = sysfs.read_text(path)
            if text:
                return Reading(text, self._absolute(path))
        return Reading(None, reason=_no_cpufreq(paths))

    def throttling(self) -> Reading[Throttling]:
        """Return the sum of the x86 processors' throttle counters."""
        paths = sysfs.paths(self.root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
        counts = [count for count in map(sysfs.read_integer, paths) if count is not None]
        if counts:
            return Reading(Throttling(count=sum(counts)), "thermal_throttle/core_throttle_count")
        return Reading(None, reason="the kernel has no throttle counters")

    def energy_source(self) -> Reading[str]:
        """Look for RAPL counters, then a power monitor chip on the board, then a battery gauge."""
        counters = sysfs.paths(self.root, "sys/class/powercap/*/energy_uj")
        for path in counters:
            if sysfs.read_integer(path) is not None:
                return _energy(self._absolute(path) + " (hw_counter)")
        for path in sysfs.paths(self.root, "sys/class/hwmon/hwmon*/power1_input"):
            chip = sysfs.read_text(os.path.join(os.path.dirname(path), "name")) or ""
            if chip.startswith("ina") and sysfs.read_integer(path) is not None:
                return _energy(f"{chip} {self._absolute(path)} (hw_sampled)")
        for path in sysfs.paths(self.root, "sys/class/power_supply/*/current_now"):
            voltage = sysfs.read_integer(os.path.join(os.path.dirname(path), "voltage_now"))
            if sysfs.read_integer(path) is not None and voltage:
                return _energy(self._absolute(path) + " and voltage_now (hw_sampled)")
        if counters:
            return Reading(None, reason=f"only root may read {self._absolute(counters[0])}")
        return Reading(None, reason="no energy sensor")

    def load_1min(self) -> Reading[float]:
        words = (sysfs.read_text(self._path("proc/loadavg")) or "").split()
        return (
            Reading(float(words[0]), "/proc/loadavg") if words else Reading(None, reason="no /proc/loadavg")
        )

    def cpu_pressure_us(self) -> Reading[int]:
        some = sysfs.read_line(self._path("proc/pressure/cpu"), "some") or ""
        for word in some.split():
            if word.startswith("total="):
                return Reading(int(word[len("total=") :]), "/proc/pressure/cpu")
        return Reading(None, reason="the kernel does not report pressure")

    def autostart_kinds(self) -> tuple[str, ...]:
        return (SYSTEMD_USER, SYSTEMD_SYSTEM, PLAIN)

    def app_prefix(self) -> str | None:
        return None

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _absolute(self, path: str) -> str:
        return sysfs.absolute(self.root, path)

    def _cpufreq(self, name: str) -> list[str]:
        """Return the files of that name, one for each frequency policy."""
        policies = sysfs.paths(self.root, "sys/devices/system/cpu/cpufreq/policy*/" + name)
        return policies or sysfs.paths(self.root, "sys/devices/system/cpu/cpu0/cpufreq/" + name)


def board_model(root: str) -> str | None:
    """Return the model that the device tree names; None without a device tree (a PC)."""
    for name in ("sys/firmware/devicetree/base/model", "proc/device-tree/model"):
        text = sysfs.read_text(os.path.join(root, name))
        if text:
            return text
    return None


def _cpu_zones_first(path: str) -> tuple[bool, str]:
    zone = (sysfs.read_text(os.path.join(os.path.dirname(path), "type")) or "").lower()
    return not any(name in zone for name in _CPU_ZONES), path


def _no_cpufreq(paths: list[str]) -> str:
    return "cpufreq cannot be read" if paths else "the kernel has no cpufreq"


def _energy(source: str) -> Reading[str]:
    return Reading(source, source)
