"""What can be measured here, and from where; a figure is absent with a reason, never guessed."""

from __future__ import annotations

import glob
import os
import subprocess
from typing import NamedTuple

from edgeq_agent.platforms.device import read_text
from edgeq_agent.wire import Json

# Bits of the firmware's throttling word; 16 to 19 are the same, since boot.
THROTTLE_BITS = ("under-voltage", "frequency-capped", "throttled", "soft-temperature-limit")

_CPU_ZONES = ("cpu", "soc", "x86_pkg", "coretemp", "bcm2835", "mtktscpu", "tsens")


class Measure(NamedTuple):
    """A reading with its source, or None with the reason."""

    value: object | None
    source: str = ""
    reason: str = ""


def availability(root: str = "/") -> Json:
    """Return for each measure whether it can be had here, and its source or the reason why not."""
    found: dict[str, Measure] = {
        "latency": Measure(1, "time.perf_counter_ns around one invocation"),
        "memory": memory(root),
        "temperature": temperature_c(root),
        "frequency": frequency_hz(root),
        "governor": governor(root),
        "throttling": throttling(root),
        "energy": energy(root),
    }
    return {
        name: {"available": True, "source": measure.source}
        if measure.value is not None
        else {"available": False, "reason": measure.reason}
        for name, measure in found.items()
    }


def environment(root: str = "/") -> Json:
    """Return the readings that say whether a benchmark was disturbed, and why those that are null are
    absent."""
    found: dict[str, Measure] = {
        "temperature_c": temperature_c(root),
        "frequency_hz": frequency_hz(root),
        "governor": governor(root),
        "throttling": throttling(root),
        "load_1min": load_1min(root),
        "cpu_pressure_us": cpu_pressure_us(root),
    }
    reading: Json = {name: measure.value for name, measure in found.items()}
    reading["absent"] = {name: measure.reason for name, measure in found.items() if measure.value is None}
    return reading


def memory(root: str = "/") -> Measure:
    """Return the peak resident memory of this process in bytes."""
    text = read_text(os.path.join(root, "proc/self/status")) or ""
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return Measure(int(line.split()[1]) * 1024, "/proc/self/status VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measure(peak, "getrusage ru_maxrss") if peak else Measure(None, reason="the kernel tells no peak")


def temperature_c(root: str = "/") -> Measure:
    """Return the processor's temperature from the kernel's thermal zones."""
    zones = _paths(root, "sys/class/thermal/thermal_zone*/temp")
    if not zones:
        return Measure(None, reason="the kernel has no thermal zone")
    for path in sorted(zones, key=_zone_rank):
        raw = _integer(path)
        if raw is not None and -40000 < raw < 200000:
            return Measure(raw / 1000.0, _shown(root, path))
    return Measure(None, reason="no thermal zone can be read")


def _zone_rank(path: str) -> tuple[bool, str]:
    kind = (read_text(os.path.join(os.path.dirname(path), "type")) or "").lower()
    return not any(name in kind for name in _CPU_ZONES), path


def governor(root: str = "/") -> Measure:
    """Return the first frequency policy's governor ("performance", "ondemand")."""
    return _cpufreq(root, "scaling_governor", None)


def frequency_hz(root: str = "/") -> Measure:
    """Return the first frequency policy's present frequency."""
    return _cpufreq(root, "scaling_cur_freq", 1000)


def _cpufreq(root: str, name: str, scale: int | None) -> Measure:
    paths = _paths(root, "sys/devices/system/cpu/cpufreq/policy*/" + name)
    paths = paths or _paths(root, "sys/devices/system/cpu/cpu0/cpufreq/" + name)
    for path in paths:
        text = read_text(path)
        if text and scale is None:
            return Measure(text, _shown(root, path))
        if text and text.isdigit() and scale is not None:
            return Measure(int(text) * scale, _shown(root, path))
    return Measure(None, reason="cpufreq cannot be read" if paths else "the kernel has no cpufreq")


def throttling(root: str = "/") -> Measure:
    """Return {now, since_boot} of the Raspberry Pi's firmware, or {count} of an x86's counters."""
    word, source = _throttled_word(root)
    if word is not None:
        now = [name for bit, name in enumerate(THROTTLE_BITS) if word & 1 << bit]
        past = [name for bit, name in enumerate(THROTTLE_BITS) if word & 1 << bit + 16]
        return Measure({"now": now, "since_boot": past}, source)
    counters = _paths(root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    counts = [count for count in map(_integer, counters) if count is not None]
    if counts:
        return Measure({"count": sum(counts)}, "thermal_throttle/core_throttle_count")
    return Measure(None, reason="neither the firmware's get_throttled nor throttle counters are there")


def _throttled_word(root: str) -> tuple[int | None, str]:
    for path in _paths(root, "sys/devices/platform/soc/soc:firmware/get_throttled"):
        word = _hex(read_text(path))
        if word is not None:
            return word, _shown(root, path)
    answer = _vcgencmd(root, ["get_throttled"])  # "throttled=0x50005"
    return _hex(answer.partition("=")[2]), "vcgencmd get_throttled"


def energy(root: str = "/") -> Measure:
    """Return a source of energy or power figures, with its class: hw_counter or hw_sampled."""
    for path in _paths(root, "sys/class/powercap/*/energy_uj"):
        if _integer(path) is not None:
            return Measure(1, _shown(root, path) + " (hw_counter)")
    for path in _paths(root, "sys/class/hwmon/hwmon*/power1_input"):
        chip = read_text(os.path.join(os.path.dirname(path), "name")) or ""
        if chip.startswith("ina") and _integer(path) is not None:
            return Measure(1, f"{chip} {_shown(root, path)} (hw_sampled)")
    for path in _paths(root, "sys/class/power_supply/*/current_now"):
        if _integer(path) is not None and _integer(os.path.join(os.path.dirname(path), "voltage_now")):
            return Measure(1, _shown(root, path) + " and voltage_now (hw_sampled)")
    if "EXT5V_V" in _vcgencmd(root, ["pmic_read_adc"]):
        return Measure(1, "vcgencmd pmic_read_adc (hw_sampled, without loads on 5 V)")
    locked = _paths(root, "sys/class/powercap/*/energy_uj")
    reason = f"only root may read {_shown(root, locked[0])}" if locked else "no energy sensor"
    return Measure(None, reason=reason)


def load_1min(root: str = "/") -> Measure:
    """Return the kernel's load average over one minute."""
    words = (read_text(os.path.join(root, "proc/loadavg")) or "").split()
    return Measure(float(words[0]), "/proc/loadavg") if words else Measure(None, reason="no /proc/loadavg")


def cpu_pressure_us(root: str = "/") -> Measure:
    """Return for how long in all, since boot, some task waited for a processor."""
    text = read_text(os.path.join(root, "proc/pressure/cpu")) or ""
    for word in text.partition("\n")[0].split():
        if word.startswith("total="):
            return Measure(int(word[6:]), "/proc/pressure/cpu")
    return Measure(None, reason="the kernel tells no pressure")


def _vcgencmd(root: str, words: list[str]) -> str:
    """Return what the Raspberry Pi's firmware tool says, "" when it is not there or fails."""
    tool = os.path.join(root, "usr/bin/vcgencmd")
    if not os.access(tool, os.X_OK):
        return ""
    try:
        done = subprocess.run(
            [tool, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def _hex(text: str | None) -> int | None:
    try:
        return int(text or "", 16)
    except ValueError:
        return None


def _integer(path: str) -> int | None:
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def _paths(root: str, pattern: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(root), pattern)))


def _shown(root: str, path: str) -> str:
    return "/" + os.path.relpath(path, root)
