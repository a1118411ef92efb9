"""Guard: the agent changes files only through `edgeq_agent.storage.disk`, where tests inject faults."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SEAM = "disk.py"
# The calls that change files. Reading (`os.open` with O_RDONLY, `open(path, "rb")`) is free.
CHANGES = {
    "os": {
        "replace", "rename", "renames", "symlink", "link", "unlink", "remove", "mkdir", "makedirs", "rmdir",
        "removedirs", "truncate", "ftruncate", "write", "writev", "pwrite", "pwritev", "fsync", "fdatasync",
        "sync", "chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "utime", "mknod", "mkfifo",
        "sendfile", "copy_file_range", "posix_fallocate", "setxattr", "removexattr",
    },
    "shutil": {"rmtree", "copy", "copy2", "copyfile", "copyfileobj", "copytree", "copymode", "copystat",
               "move", "unpack_archive", "make_archive", "chown"},
}  # fmt: skip
METHODS = {"write_bytes", "write_text", "touch", "symlink_to", "hardlink_to", "extract", "extractall"}
MODULES = {"tempfile", "pathlib"}
# Not files: the pipe to the parent process, and /dev/null, which replaces a closed standard output.
EXCEPTIONS = {("call.py", "os.open"), ("worker.py", "os.fdopen")}


def offences(name: str, source: str) -> list[str]:
    """Return the calls in an agent module that change files outside that module."""
    calls = []
    for node in ast.walk(ast.parse(source)):
        what = _imported(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else None
        if isinstance(node, ast.Call):
            what = _called(node)
        if what and (name, what) not in EXCEPTIONS:
            calls.append(f"{name}:{getattr(node, 'lineno', 0)}: {what}")
    return calls


def _imported(node: ast.Import | ast.ImportFrom) -> str | None:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # `from os import replace` would hide the call.
        hidden = CHANGES.get(node.module or "", set()) | {"open", "fdopen"}
        return next((f"from {node.module} import {name}" for name in names if name in hidden), None) or (
            f"from {node.module}" if node.module in MODULES else None
        )
    return next((f"import {name}" for name in names if name in MODULES), None)


def _called(node: ast.Call) -> str | None:
    function = node.func
    if isinstance(function, ast.Name) and function.id == "open":
        return "open for writing" if _writes(node, 1) else None
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in CHANGES.get(owner, ()):
        return f"{owner}.{function.attr}"
    if (owner, function.attr) == ("os", "open"):
        flags = ast.unparse(node.args[1]) if len(node.args) > 1 else "?"
        return None if flags == "os.O_RDONLY" else "os.open"
    if (owner, function.attr) in (("os", "fdopen"), ("io", "open")):
        return f"{owner}.{function.attr}" if _writes(node, 1) else None
    return f".{function.attr}" if function.attr in METHODS else None


def _writes(node: ast.Call, position: int) -> bool:
    mode: ast.expr | None = node.args[position] if len(node.args) > position else None
    for keyword in node.keywords:
        mode = keyword.value if keyword.arg == "mode" else mode
    if mode is None:
        return False
    # A computed mode counts as writing.
    return not isinstance(mode, ast.Constant) or bool(set(str(mode.value)) & set("wax+"))


def agent_files() -> list[Path]:
    return sorted((Path(__file__).resolve().parents[2] / "device_agents" / "edgeq_agent").rglob("*.py"))


def test_only_the_seam_changes_files() -> None:
    calls = [
        line
        for path in agent_files()
        if path.name != SEAM
        for line in offences(path.name, path.read_text("utf-8"))
    ]
    assert calls == [], "use edgeq_agent.storage.disk, so that tests can cut the power after each operation"


def test_the_seam_itself_would_be_seen() -> None:
    path = next(path for path in agent_files() if path.name == SEAM)
    seen = {line.rpartition(": ")[2] for line in offences(SEAM, path.read_text("utf-8"))}
    assert seen >= {"os.replace", "os.symlink", "os.unlink", "os.mkdir", "os.fsync", "os.write", "os.open"}


@pytest.mark.parametrize(
    "planted",
    [
        "import os\nos.replace('a', 'b')\n",
        "import os\nos.symlink('a', 'b')\n",
        "import os\nos.open('a', os.O_WRONLY | os.O_CREAT)\n",
        "from os import replace\nreplace('a', 'b')\n",
        "import shutil\nshutil.rmtree('a')\n",
        "open('a', 'w').close()\n",
        "open('a', mode='ab').close()\n",
        "mode = 'wb'\nopen('a', mode).close()\n",
        "import os\nos.fdopen(3, 'wb')\n",
        "import tempfile\n",
        "from pathlib import Path\n",
        "archive.extractall('folder')\n",
    ],
)
def test_a_planted_offence_is_seen(planted: str) -> None:
    assert len(offences("planted.py", planted)) == 1


FREE = ["open('a', 'rb')\n", "open('a')\n", "import os\nos.open('a', os.O_RDONLY)\n", "stream.write(b'')\n"]


@pytest.mark.parametrize("free", FREE)
def test_reading_is_free(free: str) -> None:
    assert offences("planted.py", free) == []
