"""Coral boards (Dev Board, Dev Board Mini, SoM): NXP or MediaTek boards with an Edge TPU, on Mendel Linux."""

from __future__ import annotations

import os

from edgeq_agent.platforms import sysfs
from edgeq_agent.platforms.linux import Linux, board_model


class Coral(Linux):
    """A Coral board; their kernels have the generic sensors, and some boards an INA power monitor."""

    @staticmethod
    def matches(root: str) -> bool:
        model = board_model(root) or ""
        return "Coral" in model or "Phanbell" in model or _mendel_version(root) is not None

    def mendel_version(self) -> str | None:
        return _mendel_version(self.root)


def _mendel_version(root: str) -> str | None:
    return sysfs.read_text(os.path.join(root, "etc/mendel_version")) or None
