"""The kinds of devices and the platform of each: the one definition that the host and the agent share.

A new platform is one module beside this one, one entry here, one test file, and one row in docs/deploy.md.
The host's inventory and blueprints use `DeviceKind` too, so this module must stay quick to import.
"""

from __future__ import annotations

from enum import Enum
from typing import Type

from edgeq_agent.platforms.android import Android
from edgeq_agent.platforms.base import Platform
from edgeq_agent.platforms.coral import Coral
from edgeq_agent.platforms.linux import Linux
from edgeq_agent.platforms.raspberry_pi import RaspberryPi


class DeviceKind(str, Enum):
    """A kind of device. Its value is the name in inventories, blueprints and manifests."""

    RASPBERRY_PI = "raspberry-pi"
    CORAL = "coral"
    ANDROID = "android"
    LINUX = "linux"

    # As enum.StrEnum, which Python 3.7 does not have.
    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, format_spec: str) -> str:
        return format(str(self.value), format_spec)


# The first platform that matches a device is its kind. Linux matches every device and stays last.
PLATFORMS: dict[DeviceKind, Type[Platform]] = {
    DeviceKind.RASPBERRY_PI: RaspberryPi,
    DeviceKind.CORAL: Coral,
    DeviceKind.ANDROID: Android,
    DeviceKind.LINUX: Linux,
}


def kind_of(root: str = "/") -> DeviceKind:
    """Return the kind of the device with the system's files below `root`."""
    return next(kind for kind, platform in PLATFORMS.items() if platform.matches(root))


def platform_of(root: str = "/") -> Platform:
    """Return the platform of the device with the system's files below `root`."""
    return PLATFORMS[kind_of(root)](root)
