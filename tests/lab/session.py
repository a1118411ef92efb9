"""One session of the lab: the folder, the login key and the devices that its tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.device import LabDevice, Spec

# Boots a device of this name, which runs until the test ends.
Boot = Callable[[Spec, str], LabDevice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A session of the lab.

    Attributes:
        scratch: its folder; everything that it starts names it.
        identity: the key that every device lets in.
    """

    scratch: Path
    identity: Path
    devices: list[LabDevice] = field(default_factory=list)

    def device(self, spec: Spec, name: str, **more: Any) -> LabDevice:
        """Make a device that is not booted yet."""
        folder = self.scratch / f"{len(self.devices)}-{name}"
        made = LabDevice(spec, folder, name=name, identity=self.identity, **more)
        self.devices.append(made)
        return made
