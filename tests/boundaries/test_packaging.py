"""The wheel: three import packages, a lean install, and the same agent from a wheel as from a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HEAVY = {"tensorflow", "tf-keras", "tf_keras", "ai-edge-litert", "litert-quantizer", "plotly", "scikit-learn"}


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(project_root)),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("edgeq-*.whl")
    return path


def test_it_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        names = set(archive.namelist())
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "edgeq",
        "edgeq_agent",
        "edgeq_converters",
    }
    for package in ("edgeq", "edgeq_agent", "edgeq_converters"):
        assert f"{package}/py.typed" in names
    assert "edgeq/blueprint/blueprint.schema.json" in names


def test_the_lean_install_brings_nothing_heavy(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        headers = message_from_bytes(archive.read(metadata))
    requirements = [Requirement(text) for text in headers.get_all("Requires-Dist", [])]
    lean = {
        requirement.name
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    assert "click" in lean
    assert not lean & HEAVY
    for requirement in requirements:
        assert requirement.specifier or requirement.name == "edgeq", f"{requirement} has no range"
    extras = set(headers.get_all("Provides-Extra", []))
    assert {"convert", "dashboard", "all"} <= extras
    assert headers["Requires-Python"] == ">=3.11"
    assert headers["License-Expression"] == "Apache-2.0"


def test_the_agent_is_the_same_from_a_wheel_and_from_a_checkout(wheel: Path, tmp_path: Path) -> None:
    from edgeq.fleet.agent.file import build_agent

    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    script = "from edgeq.fleet.agent.file import build_agent; print(build_agent().sha256)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {script}"],
        capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == build_agent().sha256


def test_an_agent_from_the_wheel_is_not_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    # Without this, the test above could compare the checkout with itself.
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    script = f"import sys; sys.path.insert(0, {str(installed)!r}); import edgeq; print(edgeq.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    assert str(installed) in done.stdout


def test_one_version_everywhere(project_root: Path) -> None:
    import tomllib

    import edgeq
    import edgeq_agent

    settings = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["version"] == edgeq.__version__ == edgeq_agent.__version__
