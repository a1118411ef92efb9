"""Linters: ruff, mypy and the import layers pass, and each refuses a planted fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(sys.executable).parent
PACKAGES = ("edgeq", "converters", "device_agents")


def run(*command: str | Path, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd, input=text, capture_output=True, text=True, timeout=280, check=False, env=environment,
    )  # fmt: skip


def copy_of(project_root: Path, folder: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(project_root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project_root / "pyproject.toml", folder)
    return folder


def test_ruff_finds_nothing(project_root: Path) -> None:
    check = run(TOOLS / "ruff", "check", ".", cwd=project_root)
    assert check.returncode == 0, check.stdout
    style = run(TOOLS / "ruff", "format", "--check", ".", cwd=project_root)
    assert style.returncode == 0, style.stdout


@pytest.mark.parametrize(
    ("file", "fault", "rule"),
    [
        ("edgeq/planted.py", "try:\n    x = 1\nexcept Exception:\n    pass\n", "BLE001"),
        ("edgeq/planted.py", "print('talk')\n", "T201"),
        ("edgeq/planted.py", "import os\n", "F401"),
        ("tests/planted.py", "from edgeq import units\nx = units._BYTES\n", "SLF001"),
        ("converters/edgeq_converters/planted.py", "def f(x=[]):\n    return x\n", "B006"),
        ("device_agents/edgeq_agent/planted.py", "import subprocess as s\ns.run('ls', shell=True)\n", "S60"),
    ],
)  # fmt: skip
def test_ruff_refuses_a_planted_fault(project_root: Path, file: str, fault: str, rule: str) -> None:
    check = run(TOOLS / "ruff", "check", "--stdin-filename", file, "-", cwd=project_root, text=fault)
    assert check.returncode == 1
    assert rule in check.stdout


@pytest.mark.slow
def test_mypy_finds_nothing(project_root: Path) -> None:
    check = run(sys.executable, "-m", "mypy", cwd=project_root)
    assert check.returncode == 0, check.stdout


@pytest.mark.slow
def test_mypy_refuses_a_planted_fault(project_root: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("from edgeq.units import format_size\n\nsize: int = format_size(1)\n\ndef f(x): ...\n")
    settings = project_root / "pyproject.toml"
    check = run(sys.executable, "-m", "mypy", "--config-file", settings, planted, cwd=project_root)
    assert check.returncode == 1
    assert "Incompatible types in assignment" in check.stdout
    assert "missing a type annotation" in check.stdout


# `python -m importlinter.cli` exits with 0 and does nothing, so the test runs a script and reads its output.
def test_the_import_layers_hold(project_root: Path) -> None:
    check = run(TOOLS / "lint-imports", "--no-cache", cwd=project_root)
    assert check.returncode == 0, check.stdout
    assert "0 broken" in check.stdout


PLANTED_IMPORTS = [
    ("device_agents/edgeq_agent/planted.py", "import edgeq.units\n", "The agent imports neither"),
    (
        "converters/edgeq_converters/data/planted.py",
        "import edgeq_agent.wire\n",
        "The converters import neither",
    ),
    (
        "converters/edgeq_converters/calibration/planted.py",
        "import edgeq_converters.recipe\n",
        "Layers of the converters",
    ),
    (
        "converters/edgeq_converters/data/planted.py",
        "import edgeq_converters.calibration.histogram\n",
        "Layers of the converters",
    ),
    (
        "converters/edgeq_converters/sensitivity/planted.py",
        "def later() -> None:\n    import edgeq_converters.training.qat\n",
        "Layers of the converters",
    ),
    ("converters/edgeq_converters/nowhere/__init__.py", "", "Layers of the converters"),
    (
        "edgeq/fleet/planted.py",
        "import edgeq_agent.__main__\n",
        "edgeq imports only the shared modules",
    ),
    (
        "edgeq/fleet/planted.py",
        "import edgeq_agent.storage.disk\n",
        "edgeq imports only the shared modules",
    ),
    (
        "device_agents/edgeq_agent/storage/planted.py",
        "import edgeq_agent.calls.call\n",
        "Layers of the agent",
    ),
    ("device_agents/edgeq_agent/trust/planted.py", "import edgeq_agent.telemetry\n", "Layers of the agent"),
    ("device_agents/edgeq_agent/autostart/planted.py", "import edgeq_agent.verbs\n", "Layers of the agent"),
    (
        "device_agents/edgeq_agent/verbs/planted.py",
        "import edgeq_agent.runtimes.native\n",
        "The kinds of runtimes are known to the runtimes alone",
    ),
    ("device_agents/edgeq_agent/nowhere/__init__.py", "", "Layers of the agent"),
    ("edgeq/blueprint/planted.py", "import edgeq.fleet\n", "Layers of edgeq"),
    ("edgeq/evaluation/planted.py", "import edgeq.selection\n", "Layers of edgeq"),
    ("edgeq/nowhere/__init__.py", "", "Layers of edgeq"),
]


def section_of(report: str, contract: str) -> str:
    """Return what a report says about a broken contract, given the beginning of its name."""
    broken = report.partition("Broken contracts")[2]
    titled = re.split(r"^(.+)\n-+$", broken, flags=re.M)[1:]
    return "".join(
        " ".join(text.split())
        for title, text in zip(titled[::2], titled[1::2], strict=True)
        if title.startswith(contract)
    )


def test_the_import_layers_refuse_every_planted_fault(project_root: Path, tmp_path: Path) -> None:
    copy = copy_of(project_root, tmp_path)
    expected = []
    for number, (file, fault, contract) in enumerate(PLANTED_IMPORTS):
        place = copy / file.replace("planted.py", f"planted_{number}.py")
        place.parent.mkdir(exist_ok=True)
        place.write_text(f'"""Planted."""\n{fault}')
        module = ".".join(place.relative_to(copy).with_suffix("").parts).removesuffix(".__init__")
        module = re.sub(r"^(converters|device_agents)\.", "", module)
        imported = fault.rpartition("import ")[2].strip()
        expected.append((contract, f"- {module} -> {imported}" if imported else f"- {module}"))
    # The copy precedes the editable install on the path.
    paths = [str(copy / name) for name in ("", "converters", "device_agents")]
    script = (
        f"import sys; sys.path[:0] = {paths!r};"
        " from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    check = run(sys.executable, "-c", script, "--no-cache", cwd=copy)
    assert check.returncode == 1, check.stdout + check.stderr
    missing = [
        (contract, text) for contract, text in expected if text not in section_of(check.stdout, contract)
    ]
    assert missing == [], check.stdout
