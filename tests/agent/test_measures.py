"""What can be measured, on trees of system files as boards have them; a figure is absent with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.inference.jobs import bench
from edgeq_agent.platforms import device, facts, sensors

PI = {
    "sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\x00",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "48686\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "proc/meminfo": "MemTotal:        3977584 kB\nMemFree: 1 kB\n",
    "proc/loadavg": "0.42 0.30 0.20 1/100 1234\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0 total=1\n",
    "proc/self/status": "Name:\tpython3\nVmHWM:\t   20480 kB\n",
}
CORAL = {
    "proc/device-tree/model": "Freescale i.MX8MQ Phanbell\x00",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "40000",
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "52000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/class/hwmon/hwmon0/name": "ina219",
    "sys/class/hwmon/hwmon0/power1_input": "2400000",
}
PHONE = {
    "system/build.prop": "",
    "sys/class/power_supply/battery/current_now": "-350000",
    "sys/class/power_supply/battery/voltage_now": "4012000",
}


def _tree(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = _tree(tmp_path, PI)
    found = sensors.availability(root)
    assert found["temperature"] == {"available": True, "source": "/sys/class/thermal/thermal_zone0/temp"}
    assert found["governor"]["source"].endswith("scaling_governor")
    assert found["frequency"]["available"]
    assert found["throttling"]["source"].endswith("get_throttled")
    assert found["memory"]["source"] == "/proc/self/status VmHWM"
    assert found["energy"] == {"available": False, "reason": "no energy sensor"}
    reading = sensors.environment(root)
    assert reading["temperature_c"] == 48.686
    assert reading["frequency_hz"] == 1_500_000_000
    assert reading["governor"] == "ondemand"
    assert reading["throttling"] == {
        "now": ["under-voltage", "throttled"],
        "since_boot": ["under-voltage", "throttled"],
    }
    assert reading["load_1min"] == 0.42
    assert reading["cpu_pressure_us"] == 123456
    assert reading["absent"] == {}
    assert sensors.memory(root).value == 20480 * 1024
    assert facts.memory_bytes(root) == 3977584 * 1024
    assert device.board_model(root) == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.kind(root) == "raspberry-pi"


def test_a_coral_board_takes_the_processors_zone_and_its_power_sensor(tmp_path: Path) -> None:
    root = _tree(tmp_path, CORAL)
    assert sensors.temperature_c(root).value == 52.0
    assert sensors.governor(root).value == "performance"
    assert sensors.availability(root)["energy"]["source"].startswith("ina219 /sys/class/hwmon/hwmon0")
    assert device.kind(root) == "coral"
    assert sensors.frequency_hz(root).reason == "the kernel has no cpufreq"


def test_a_phone_has_a_battery_gauge(tmp_path: Path) -> None:
    root = _tree(tmp_path, PHONE)
    assert "current_now" in sensors.availability(root)["energy"]["source"]
    assert device.kind(root) == "android"


def test_a_bare_system_says_why(tmp_path: Path) -> None:
    root = str(tmp_path)
    found = sensors.availability(root)
    for name in ("temperature", "frequency", "governor", "throttling", "energy"):
        assert found[name]["available"] is False
        assert found[name]["reason"]
    assert found["memory"]["source"] == "getrusage ru_maxrss"
    assert found["latency"]["available"]
    reading = sensors.environment(root)
    assert set(reading["absent"]) == {name for name, value in reading.items() if value is None}
    assert device.kind(root) == "linux"
    assert device.boot_id(root) == "unknown"


@pytest.mark.parametrize("text", ["", "garbage", "999999999"])
def test_a_zone_that_lies_is_absent(tmp_path: Path, text: str) -> None:
    root = _tree(tmp_path, {"sys/class/thermal/thermal_zone0/temp": text})
    assert sensors.temperature_c(root).reason == "no thermal zone can be read"


def test_vcgencmd_is_asked_where_the_firmware_file_is_not(tmp_path: Path) -> None:
    root = _tree(
        tmp_path, {"usr/bin/vcgencmd": "#!/bin/sh\n[ $1 = get_throttled ] && echo throttled=0x80008\n"}
    )
    (tmp_path / "usr/bin/vcgencmd").chmod(0o755)
    assert sensors.throttling(root).value == {
        "now": ["soft-temperature-limit"],
        "since_boot": ["soft-temperature-limit"],
    }
    (tmp_path / "usr/bin/vcgencmd").write_text("#!/bin/sh\necho VCHI initialization failed\nexit 1\n")
    assert sensors.throttling(root).value is None


def test_x86_counters(tmp_path: Path) -> None:
    root = _tree(
        tmp_path, {f"sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count": "3" for n in (0, 1)}
    )
    assert sensors.throttling(root).value == {"count": 6}


def _reading(throttling: Any) -> dict[str, Any]:
    return {"throttling": throttling}


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (None, None, []),
        ({"now": [], "since_boot": ["throttled"]}, {"now": [], "since_boot": ["throttled"]}, []),
        ({"now": ["throttled"], "since_boot": []}, {"now": [], "since_boot": []}, ["throttled: throttled"]),
        (
            {"now": [], "since_boot": []},
            {"now": [], "since_boot": ["under-voltage"]},
            ["throttled during the run: under-voltage"],
        ),
        ({"count": 6}, {"count": 8}, ["the processor throttled 2 times"]),
    ],
)
def test_a_throttled_run_is_invalid(before: Any, after: Any, reasons: list[str]) -> None:
    assert bench.disturbances(_reading(before), _reading(after)) == reasons
