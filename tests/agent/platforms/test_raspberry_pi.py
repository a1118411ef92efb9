"""Raspberry Pi: the firmware's throttling word and its tool, on trees of system files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgeq_agent.platforms.base import Throttling
from edgeq_agent.platforms.raspberry_pi import RaspberryPi
from edgeq_agent.platforms.registry import DeviceKind, kind_of, platform_of

Tree = Callable[[Mapping[str, str]], str]

MODEL = {"sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\x00"}
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


def _tool(root: str, script: str) -> None:
    path = Path(root) / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_the_device_tree_names_the_board(tree: Tree) -> None:
    root = tree(MODEL)
    assert kind_of(root) is DeviceKind.RASPBERRY_PI
    assert platform_of(root).board_model() == "Raspberry Pi 4 Model B Rev 1.4"


def test_a_container_without_the_device_tree_is_known_by_the_firmware(tree: Tree) -> None:
    assert kind_of(tree({THROTTLED: "0\n"})) is DeviceKind.RASPBERRY_PI


def test_the_throttling_word_is_read_bit_by_bit(tree: Tree) -> None:
    reading = platform_of(tree({**MODEL, THROTTLED: "50005\n"})).throttling()
    assert reading.value == Throttling(("under-voltage", "throttled"), ("under-voltage", "throttled"))
    assert reading.source == "/" + THROTTLED
    reading = platform_of(tree({THROTTLED: "20008\n"})).throttling()
    assert reading.value == Throttling(("soft-temperature-limit",), ("frequency-capped",))


def test_the_tool_answers_where_the_kernel_has_no_file(tree: Tree) -> None:
    root = tree(MODEL)
    _tool(root, "[ $1 = get_throttled ] && echo throttled=0x80008\n")
    reading = platform_of(root).throttling()
    assert reading.value == Throttling(("soft-temperature-limit",), ("soft-temperature-limit",))
    assert reading.source == "vcgencmd get_throttled"
    _tool(root, "echo VCHI initialization failed\nexit 1\n")
    reading = platform_of(root).throttling()
    assert (reading.value, reading.reason) == (None, "the firmware's get_throttled cannot be read")


def test_the_power_chip_of_a_pi_5_measures_energy(tree: Tree) -> None:
    pi = RaspberryPi(tree(MODEL))
    assert pi.energy_source().reason == "no energy sensor"
    _tool(pi.root, "[ $1 = pmic_read_adc ] && echo 'EXT5V_V volt(24)=5.13V'\n")
    assert (pi.energy_source().value or "").startswith("vcgencmd pmic_read_adc (hw_sampled")
