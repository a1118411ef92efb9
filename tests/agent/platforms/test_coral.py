"""Coral boards: known by the device tree or by Mendel's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from edgeq_agent.platforms import facts
from edgeq_agent.platforms.registry import DeviceKind, kind_of, platform_of

Tree = Callable[[Mapping[str, str]], str]

BOARD = {
    "proc/device-tree/model": "Freescale i.MX8MQ Phanbell\x00",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "40000",
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "52000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/class/hwmon/hwmon0/name": "ina219",
    "sys/class/hwmon/hwmon0/power1_input": "2400000",
}


@pytest.mark.parametrize(
    "files",
    [
        {"proc/device-tree/model": "Freescale i.MX8MQ Phanbell\x00"},
        {"proc/device-tree/model": "Google Coral Dev Board Mini\x00"},
        {"etc/mendel_version": "eagle\n"},
    ],
)
def test_a_board_is_known_by_its_model_or_by_its_distribution(tree: Tree, files: dict[str, str]) -> None:
    assert kind_of(tree(files)) is DeviceKind.CORAL


def test_a_board_has_a_processor_zone_and_a_power_monitor(tree: Tree) -> None:
    coral = platform_of(tree(BOARD))
    assert coral.temperature_c().value == 52.0
    assert coral.governor().value == "performance"
    assert coral.energy_source().value == "ina219 /sys/class/hwmon/hwmon0/power1_input (hw_sampled)"
    assert coral.frequency_hz().reason == "the kernel has no cpufreq"


def test_the_facts_name_mendels_release(tree: Tree) -> None:
    assert facts.read(tree({})).mendel is None
    read = facts.read(tree({"etc/mendel_version": "eagle\n"}))
    assert (read.kind.value, read.mendel) == ("coral", "eagle")
