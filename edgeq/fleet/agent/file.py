"""Build the agent as one file: a zip of `edgeq_agent` whose bytes depend only on its sources and on zlib."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

# The earliest time that a zip can hold; a fixed time makes the bytes reproducible.
_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = b"import sys\n\nfrom edgeq_agent.__main__ import main\n\nsys.exit(main())\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFile:
    """The agent's bytes, to be run as `python3 FILE VERB`.

    Attributes:
        sha256: of `data`, hex.
    """

    data: bytes = field(repr=False)
    sha256: str

    @property
    def name(self) -> str:
        """Its file name on a device; it contains the start of the digest."""
        return f"edgeq-agent-{self.sha256[:12]}.pyz"


@cache
def build_agent() -> AgentFile:
    """Build the agent from the installed package; the same sources give the same bytes.

    Two implementations of zlib may compress to different bytes. Two such hosts then keep two files on a
    device, each named by its content.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        members = {"__main__.py": _MAIN, **dict(_sources(files("edgeq_agent"), "edgeq_agent"))}
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, members[name], compresslevel=9)
    data = buffer.getvalue()
    return AgentFile(data=data, sha256=hashlib.sha256(data).hexdigest())


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _sources(entry, name)
        elif not entry.name.endswith((".pyc", ".pyo")):
            yield name, entry.read_bytes()
