"""Guard on the agent's Python 3.7: its files parse as 3.7, and its .pyz runs on 3.7 to 3.13."""

from __future__ import annotations

import ast
import functools
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLOOR = (3, 7)
VERSIONS = [(3, minor) for minor in range(7, 14)]
# Only these run in the device's inference runtime, which has numpy; they import it inside functions.
STDLIB = set(sys.stdlib_module_names)
RUNTIME_MODULES = {"numpy", "ai_edge_litert", "tflite_runtime", "tensorflow"}


def faults_of(source: str) -> list[str]:
    """Return what in an agent file Python 3.7 does not support."""
    try:
        tree = ast.parse(source, feature_version=FLOOR)
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    faults = []
    if "from __future__ import annotations" not in source:
        faults.append("no `from __future__ import annotations`")
    top_level = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Match, ast.TryStar)):  # `feature_version` accepts these
            faults.append(f"line {node.lineno}: {type(node).__name__}")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module.partition(".")[0]]
        for name in names:
            allowed = name in STDLIB or name == "edgeq_agent"
            if name in RUNTIME_MODULES:
                allowed = id(node) not in top_level
            if not allowed:
                faults.append(f"line {getattr(node, 'lineno', 0)}: imports {name}")
    return faults


@functools.cache
def interpreters() -> dict[tuple[int, int], str]:
    """Return the interpreters of this machine that run, by version."""
    folders = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep)]
    # The account's own folder too, because HOME may name an empty one.
    for home in dict.fromkeys((Path.home(), Path(pwd.getpwuid(os.getuid()).pw_dir))):
        folders += sorted(home.glob(".pyenv/versions/*/bin"))
        folders += sorted(home.glob(".local/share/uv/python/*/bin"))
    paths: dict[tuple[int, int], str] = {}
    for version in VERSIONS:
        name = f"python{version[0]}.{version[1]}"
        for folder in folders:
            path = shutil.which(name, path=str(folder))
            if path is None or version in paths:
                continue
            # A shim may have the name and not run, so each candidate is started.
            printed = subprocess.run(
                [path, "-c", "import sys; print(sys.version_info[:2])"],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            if printed.returncode == 0 and printed.stdout.strip() == str(version):
                paths[version] = path
    return paths


def agent_files() -> list[Path]:
    return sorted((Path(__file__).resolve().parents[2] / "device_agents" / "edgeq_agent").rglob("*.py"))


@pytest.mark.parametrize("path", agent_files(), ids=lambda path: path.name)
def test_every_agent_file_fits_the_floor(path: Path) -> None:
    assert faults_of(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("planted", "word"),
    [
        ("from __future__ import annotations\nif (n := 1): pass\n", "line 2"),
        ("from __future__ import annotations\nmatch 1:\n    case 1: pass\n", ""),
        ("from __future__ import annotations\ndef f(a, /): pass\n", "line 2"),
        ("from __future__ import annotations\nimport requests\n", "imports requests"),
        ("from __future__ import annotations\nimport numpy\n", "imports numpy"),
        ("import os\n", "annotations"),
    ],
)
def test_the_floor_refuses_a_planted_fault(planted: str, word: str) -> None:
    faults = faults_of(planted)
    assert faults
    assert word in faults[0]


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgeq.fleet.agent.file import build_agent

    first, second = build_agent(), build_agent()
    assert first == second, "the agent's file is not reproducible"
    assert len(first.data) < 300_000
    path = tmp_path_factory.mktemp("agent") / "edgeq-agent.pyz"
    path.write_bytes(first.data)
    return path


@pytest.mark.first_is_quick
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: ".".join(map(str, version)))
def test_the_pyz_runs_on_each_interpreter(version: tuple[int, int], pyz: Path, tmp_path: Path) -> None:
    if version not in interpreters():
        pytest.skip(f"no Python {version[0]}.{version[1]} on this machine")

    def call(verb: str, request: dict[str, object], payload: bytes = b"") -> dict[str, object]:
        done = subprocess.run(
            [interpreters()[version], "-W", "error", str(pyz), verb, "--home", str(tmp_path / "home")],
            input=json.dumps(request).encode() + b"\n" + payload,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        assert messages, done.stderr.decode()
        assert messages[0]["event"] == "hello"
        assert done.returncode == 0, messages[-1]
        result = messages[-1]["result"]
        assert isinstance(result, dict)
        return result

    facts = call("probe", {})
    assert re.match(rf"{version[0]}\.{version[1]}\.", str(facts["python"]))
    import hashlib

    blob = os.urandom(100_000)
    sha256 = hashlib.sha256(blob).hexdigest()
    request: dict[str, object] = {"sha256": sha256, "size_bytes": len(blob), "payload_bytes": len(blob)}
    assert call("put", request, blob)["stored"] is True
    assert (tmp_path / "home" / "blobs" / "sha256" / sha256).read_bytes() == blob
    assert call("status", {})["models"] == {}


def test_at_least_the_running_interpreter_was_tried() -> None:
    assert sys.version_info[:2] in interpreters()
