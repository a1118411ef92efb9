"""The kernel's generic interfaces; a figure that cannot be read is absent with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from edgeq_agent.platforms import sensors
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, Reading, Throttling
from edgeq_agent.platforms.linux import Linux
from edgeq_agent.platforms.registry import DeviceKind, kind_of, platform_of

Tree = Callable[[Mapping[str, str]], str]

ZONE = "sys/class/thermal/thermal_zone0"
PC = {
    f"{ZONE}/type": "x86_pkg_temp",
    f"{ZONE}/temp": "48686\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4",
    "sys/class/powercap/intel-rapl:0/energy_uj": "123456",
    "proc/meminfo": "MemTotal:        3977584 kB\nMemFree: 1 kB\n",
    "proc/loadavg": "0.42 0.30 0.20 1/100 1234\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0 total=1\n",
    "proc/self/status": "Name:\tpython3\nVmHWM:\t   20480 kB\n",
}


def test_every_measure_of_a_pc_has_a_value_and_a_source(tree: Tree) -> None:
    root = tree(PC)
    assert kind_of(root) is DeviceKind.LINUX
    linux = platform_of(root)
    assert type(linux) is Linux
    assert (linux.board_model(), linux.mendel_version(), linux.app_prefix()) == (None, None, None)
    assert linux.memory_bytes() == 3977584 * 1024
    assert sensors.environment(linux).to_json() == {
        "temperature_c": 48.686,
        "frequency_hz": 1_500_000_000,
        "governor": "ondemand",
        "throttling": {"count": 7},
        "load_1min": 0.42,
        "cpu_pressure_us": 123456,
        "absent": {},
    }
    cpufreq = "/sys/devices/system/cpu/cpufreq/policy0"
    sources = {name: entry.source for name, entry in sensors.availability(linux).items()}
    assert sources == {
        "latency": "time.perf_counter_ns around one invocation",
        "memory": "/proc/self/status VmHWM",
        "temperature": f"/{ZONE}/temp",
        "frequency": f"{cpufreq}/scaling_cur_freq",
        "governor": f"{cpufreq}/scaling_governor",
        "throttling": "thermal_throttle/core_throttle_count",
        "energy": "/sys/class/powercap/intel-rapl:0/energy_uj (hw_counter)",
    }
    assert linux.peak_memory_bytes().value == 20480 * 1024


def test_a_bare_system_gives_a_reason_for_each_absent_measure(tree: Tree) -> None:
    linux = platform_of(tree({}))
    measures = sensors.availability(linux)
    for name in ("temperature", "frequency", "governor", "throttling", "energy"):
        assert measures[name].to_json() == {"available": False, "reason": measures[name].reason}
        assert measures[name].reason
    assert measures["memory"].to_json() == {"available": True, "source": "getrusage ru_maxrss"}
    assert measures["latency"].source
    reading = sensors.environment(linux).to_json()
    assert set(reading["absent"]) == {name for name, value in reading.items() if value is None}
    assert linux.memory_bytes() is None


@pytest.mark.parametrize("text", ["", "garbage", "999999999"])
def test_an_implausible_temperature_is_absent(tree: Tree, text: str) -> None:
    linux = Linux(tree({f"{ZONE}/temp": text}))
    assert linux.temperature_c().reason == "no thermal zone can be read"


def test_the_processors_zone_comes_before_the_others(tree: Tree) -> None:
    other = "sys/class/thermal/thermal_zone1"
    files = {
        f"{ZONE}/type": "battery",
        f"{ZONE}/temp": "20000",
        f"{other}/type": "CPU0",
        f"{other}/temp": "61000",
    }
    assert Linux(tree(files)).temperature_c().value == 61.0


def test_energy_of_a_battery_gauge_needs_current_and_voltage(tree: Tree) -> None:
    battery = "sys/class/power_supply/battery"
    linux = Linux(tree({f"{battery}/current_now": "-350000"}))
    assert linux.energy_source().reason == "no energy sensor"
    tree({f"{battery}/voltage_now": "4012000"})
    assert linux.energy_source().value == f"/{battery}/current_now and voltage_now (hw_sampled)"


def test_a_counter_without_permission_is_named(tree: Tree) -> None:
    linux = Linux(tree({"sys/class/powercap/intel-rapl:0/energy_uj": ""}))
    assert linux.energy_source().reason == "only root may read /sys/class/powercap/intel-rapl:0/energy_uj"


def test_systemd_comes_before_a_plain_start(tree: Tree) -> None:
    assert Linux(tree({})).autostart_kinds() == (SYSTEMD_USER, SYSTEMD_SYSTEM, PLAIN)


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (None, None, []),
        (Throttling(since_boot=("throttled",)), Throttling(since_boot=("throttled",)), []),
        (Throttling(now=("throttled",)), Throttling(), ["throttled: throttled"]),
        (
            Throttling(),
            Throttling(since_boot=("under-voltage",)),
            ["throttled during the run: under-voltage"],
        ),
        (Throttling(count=6), Throttling(count=8), ["the processor throttled 2 times"]),
        (Throttling(count=6), Throttling(count=6), []),
    ],
)
def test_throttling_during_a_run_is_a_disturbance(
    tree: Tree, before: Throttling | None, after: Throttling | None, reasons: list[str]
) -> None:
    class Throttled(Linux):
        def __init__(self, throttling: Throttling | None) -> None:
            super().__init__(tree({}))
            self._throttling = throttling

        def throttling(self) -> Reading[Throttling]:
            return Reading(self._throttling, reason="none")

    first, last = sensors.environment(Throttled(before)), sensors.environment(Throttled(after))
    assert last.disturbances_since(first) == reasons
