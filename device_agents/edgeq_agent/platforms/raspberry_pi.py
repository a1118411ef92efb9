"""Raspberry Pi: the firmware reports throttling, and from the Pi 5 on the power management chip's rails."""

from __future__ import annotations

import os

from edgeq_agent.platforms import sysfs
from edgeq_agent.platforms.base import Reading, Throttling
from edgeq_agent.platforms.linux import Linux, board_model

# Bits 0 to 3 of the firmware's word are the present state; bits 16 to 19 are the same causes since boot.
THROTTLE_BITS = ("under-voltage", "frequency-capped", "throttled", "soft-temperature-limit")
_SINCE_BOOT_SHIFT = 16
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_VCGENCMD_TIMEOUT_S = 5


class RaspberryPi(Linux):
    """Any model of the Raspberry Pi."""

    @staticmethod
    def matches(root: str) -> bool:
        # A container may hide the device tree and still show the firmware's file.
        return "Raspberry Pi" in (board_model(root) or "") or bool(sysfs.paths(root, _THROTTLED))

    def throttling(self) -> Reading[Throttling]:
        """Read the firmware's throttling word from sysfs, or from vcgencmd where the kernel has no file."""
        word, source = self._throttling_word()
        if word is None:
            return Reading(None, reason="the firmware's get_throttled cannot be read")
        return Reading(Throttling(_causes(word), _causes(word >> _SINCE_BOOT_SHIFT)), source)

    def energy_source(self) -> Reading[str]:
        """Prefer a sensor that the kernel knows; the Pi 5's own chip does not see the loads on 5 V."""
        generic = super().energy_source()
        if generic.value is None and "EXT5V_V" in self._vcgencmd("pmic_read_adc"):
            source = "vcgencmd pmic_read_adc (hw_sampled, without loads on 5 V)"
            return Reading(source, source)
        return generic

    def _throttling_word(self) -> tuple[int | None, str]:
        for path in sysfs.paths(self.root, _THROTTLED):
            word = _hex(sysfs.read_text(path) or "")
            if word is not None:
                return word, self._absolute(path)
        output = self._vcgencmd("get_throttled")  # "throttled=0x50005"
        return _hex(output.partition("=")[2]), "vcgencmd get_throttled"

    def _vcgencmd(self, query: str) -> str:
        """Return what the firmware's tool prints; empty when the tool is missing or fails."""
        tool = self._path("usr/bin/vcgencmd")
        if not os.access(tool, os.X_OK):
            return ""
        import subprocess  # slow to import, and not needed on most devices

        try:
            process = subprocess.run(
                [tool, query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_VCGENCMD_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return process.stdout.decode("utf-8", "replace").strip()


def _causes(word: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(THROTTLE_BITS) if word & 1 << bit)


def _hex(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
