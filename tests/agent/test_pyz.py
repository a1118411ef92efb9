"""The agent as one file, on every Python from 3.7 on that this machine has; and its sources parse as 3.7."""

from __future__ import annotations

import ast
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Any

import pytest

CODE = Path(__file__).resolve().parents[2] / "device_agents" / "edgeq_agent"
VERSIONS = tuple(f"3.{minor}" for minor in range(7, 14))


def _interpreter(version: str) -> str | None:
    """Return an interpreter that really is of this version: a shim on PATH may be another one or none."""
    candidates = [
        shutil.which(f"python{version}"),
        # The account's own folder too: HOME may point to a clean one.
        *Path.home().glob(f".pyenv/versions/{version}*/bin/python"),
        *Path(pwd.getpwuid(os.getuid()).pw_dir).glob(f".pyenv/versions/{version}*/bin/python"),
    ]
    for candidate in candidates:
        if candidate is None:
            continue
        done = subprocess.run(
            [str(candidate), "-c", "import sys, sqlite3; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.strip() == version:
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the agent as a runnable zip."""
    folder = tmp_path_factory.mktemp("pyz")
    shutil.copytree(CODE, folder / "code" / "edgeq_agent", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "edgeq-agent.pyz"
    zipapp.create_archive(folder / "code", target, main="edgeq_agent.__main__:main")
    return target


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_parent_runs_on(version: str, pyz: Path, tmp_path: Path, kit: Any) -> None:
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"Python {version} is not on this machine")
    # Warnings are errors here too: what a later Python deprecates must not reach a device.
    command = (interpreter, "-W", "error", str(pyz))
    device = kit.Device(home=tmp_path / "home", command=command, environment=_environment())
    facts = device.call("probe").result
    assert facts["python"].startswith(version + ".")
    assert facts["pointer_bits"] in (32, 64)
    assert facts["runtimes"] == []
    data = b"bytes of a model" * 1000
    sha = device.put(data)
    assert hashlib.sha256((device.home / "blobs" / "sha256" / sha).read_bytes()).hexdigest() == sha
    assert (
        device.call("put", data[:-1] + b"X", sha256="0" * 64, size_bytes=len(data)).error["code"] == "EQ505"
    )
    status = device.call("status").result
    assert status["device_id"] == facts["device_id"]
    assert status["outbox"]["pending"] == 0
    assert device.call("telemetry").result["sent"] == 0
    assert device.raw("rollback", b"{}\n").error["code"] == "EQ512"


@pytest.mark.parametrize("version", ["3.7", "3.13"])
@pytest.mark.convert
@pytest.mark.slow
def test_parent_and_child_may_be_different_pythons(
    version: str, pyz: Path, tmp_path: Path, kit: Any, int8_bundle: Any, tiny_data: Any
) -> None:
    """The agent runs on the system's Python, the model under this test's, both from inside the same .pyz."""
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"Python {version} is not on this machine")
    own = kit.Device(home=tmp_path / "home", command=(sys.executable, str(pyz)), environment=_environment())
    made = own.call("runtime", digest=kit.RUNTIME, wheels=[]).result
    entry = own.home / "runtime" / kit.RUNTIME / "runtime.json"
    entry.write_text(
        entry.read_text().replace('"interpreter":"python"', f'"interpreter":"{made["interpreter"]}"')
    )
    other = kit.Device(home=own.home, command=(interpreter, str(pyz)), environment=_environment())
    other.enrol()
    int8_bundle.send(other)
    assert other.call("activate", **int8_bundle.request()).result["changed"]
    assert other.call("infer", kit.npz(input_0=tiny_data[:60]), model="tiny").result["windows"] == 2
    body = other.call("bench", model="tiny", runs=5, min_seconds=0.01).result
    assert body["runtime"]["interpreter_python"] == "{}.{}.{}".format(*sys.version_info[:3])
    sent = other.call("telemetry")
    assert [event["window"]["inferences"] for event in sent.of("window")] == [50, 10]


@pytest.mark.parametrize("path", sorted(CODE.rglob("*.py")), ids=lambda path: path.name)
def test_every_file_parses_as_3_7(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
    assert ast.get_docstring(tree)
    # `list[int]` and `X | None` are annotations only where annotations are not evaluated.
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body), (
        "from __future__ import annotations"
    )


@pytest.mark.parametrize("path", sorted(CODE.rglob("*.py")), ids=lambda path: path.name)
def test_numpy_and_runtimes_are_imported_in_functions_of_the_child_and_the_sdk_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outside = {"numpy", "ai_edge_litert", "tflite_runtime", "tensorflow"}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if {name.partition(".")[0] for name in names} & outside:
            assert path.parent.name in ("sdk", "http", "jobs") or path.stem in (
                "model",
                "npz",
                "window_builder",
            )
            assert node not in tree.body


def test_the_parent_imports_the_standard_library_only() -> None:
    parents = sorted(
        ".".join(path.relative_to(CODE).with_suffix("").parts)
        for path in CODE.rglob("*.py")
        if not path.stem.startswith("__")
        and path.parent.name != "jobs"
        and path.stem not in ("model", "window_builder")
    )
    script = (
        "import sys\n"
        f"for name in {parents!r}: __import__('edgeq_agent.' + name)\n"
        "known = sys.stdlib_module_names | {'edgeq_agent'}\n"
        "print([name for name in sys.modules if name.partition('.')[0] not in known and name[0] != '_'])"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(CODE.parent)!r})\n" + script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.slow
def test_the_long_lived_runtime_imports_on(version: str, pyz: Path) -> None:
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"Python {version} is not on this machine")
    names = [f"{part}.{path.stem}" for part in ("sdk", "http") for path in (CODE / part).glob("*.py")]
    code = f"import sys; sys.path.insert(0, {str(pyz)!r})\nfrom edgeq_agent import Runtime\n"
    code += "".join(f"import edgeq_agent.{name}\n" for name in names) + "print(Runtime.__name__)"
    command = [interpreter, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    assert done.stdout == "Runtime\n", done.stderr


def test_version_and_help(pyz: Path) -> None:
    for option, expected in (("--version", "0."), ("--help", "usage: edgeq-agent VERB")):
        done = subprocess.run([sys.executable, str(pyz), option], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(expected)
