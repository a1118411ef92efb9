"""Facts about the device: interpreter, C library, memory, board; the host resolves wheels with them."""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import sys
from typing import NamedTuple

from edgeq_agent.platforms import edgetpu, registry, sysfs
from edgeq_agent.platforms.base import Libc
from edgeq_agent.platforms.edgetpu import EdgeTpu
from edgeq_agent.platforms.registry import DeviceKind
from edgeq_agent.wire import RUNTIME_MODULES, Json


class Facts(NamedTuple):
    """What the device is.

    Attributes:
        machine: the kernel's; `pointer_bits` shows a 32-bit system on a 64-bit kernel.
        packages: versions of the interpreter's packages that a runtime can use.
        modules: runtimes that the interpreter can find.
        model: the board's own name.
        mendel: the release of Mendel Linux, on a Coral board.
    """

    python: str
    implementation: str
    executable: str
    machine: str
    system: str
    libc: Libc
    pointer_bits: int
    packages: dict[str, str]
    modules: list[str]
    memory_bytes: int | None
    cpu_count: int
    model: str | None
    kind: DeviceKind
    mendel: str | None
    edgetpu: EdgeTpu | None

    def to_json(self) -> Json:
        """Return the facts as the verb `probe` reports them."""
        return dict(
            self._asdict(),
            libc=self.libc._asdict(),
            kind=self.kind.value,
            edgetpu=self.edgetpu.to_json() if self.edgetpu else None,
        )


def read(root: str = "/") -> Facts:
    """Return the facts; the system's files are read below `root`."""
    system = os.uname()
    kind = registry.kind_of(root)
    platform = registry.PLATFORMS[kind](root)
    return Facts(
        python="{}.{}.{}".format(*sys.version_info[:3]),
        implementation=sys.implementation.name,
        executable=sys.executable,
        machine=system.machine,
        system=system.sysname,
        libc=platform.libc(),
        pointer_bits=struct.calcsize("P") * 8,
        packages=packages(),
        modules=modules(),
        memory_bytes=platform.memory_bytes(),
        cpu_count=os.cpu_count() or 1,
        model=platform.board_model(),
        kind=kind,
        mendel=platform.mendel_version(),
        edgetpu=edgetpu.detect(platform),
    )


def packages() -> dict[str, str]:
    """Return the versions of the interpreter's own packages that a runtime can use: numpy, or none.

    The version is read from the name of the package's metadata. An import takes a second on a small board,
    and the runtime's self-test shows whether the package works.
    """
    spec = importlib.util.find_spec("numpy")
    if spec is None or not spec.origin:
        return {}
    for name in sysfs.names(os.path.dirname(os.path.dirname(spec.origin))):
        match = re.match(r"numpy-([0-9][0-9a-z.]*?)(-py.*)?\.(dist|egg)-info$", name)
        if match:
            return {"numpy": match.group(1)}
    return {}


def modules() -> list[str]:
    """Return the runtimes that the interpreter can find, without importing them."""
    return [name for name in RUNTIME_MODULES if importlib.util.find_spec(name) is not None]
