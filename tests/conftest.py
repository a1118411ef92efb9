"""Fixtures of all tests: a clean environment, and skips with a reason for missing parts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from edgeq.cli.ui import Ui
from tests.boundaries.json_table import documented
from tests.file_order import longest_first
from tests.lab import needs
from tests.once import Once, shared_root

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("edgeq", deadline=None)
settings.load_profile("edgeq")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
# Read once, before the tests take EDGEQ_* out of their environment.
LAB_TIER = os.environ.get("EDGEQ_LAB", "")
# What tools may add to the checkout while the tests run.
CHECKOUT = pytest.StashKey[set[str]]()
CACHES = ("_cache", ".hypothesis", ".egg-info", "build", ".coverage")
# Why a test that must run on CI cannot.
MISSING = pytest.StashKey[str]()
CONVERT_MODULES = ("tensorflow", "tf_keras", "ai_edge_litert", "litert_quantizer")


def _missing(marker: str) -> str | None:
    """Return why a part that a marker names is not there, or None."""
    if marker == "convert":
        absent = [name for name in CONVERT_MODULES if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)} (pip install 'edgeq[convert]')" if absent else None
    if marker == "sshd":
        program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        return None if program else "OpenSSH's sshd is not installed (apt-get install openssh-server)"
    if marker == "browser":
        program = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        return None if program else "no headless Chromium is installed (apt-get install chromium)"
    if marker == "lab":
        return needs.missing(needs.LAB)
    if marker == "vm":
        chosen = None if LAB_TIER == "vm" else "takes many minutes; `EDGEQ_LAB=vm make test-devices` runs it"
        return chosen or needs.missing((*needs.ROOTS, *needs.MACHINE))
    if marker == "shared":
        return None if SHARED_DATA.is_dir() else "the real models are not beside the checkout"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark what cannot run here and what is slow; order what is left for several processes."""
    _mark(items)
    yield
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        items[:] = longest_first(items)


def _mark(items: list[pytest.Item]) -> None:
    """Skip what cannot run here; on CI, where everything is installed, a missing part is a failure."""
    has_quick_case: set[str] = set()
    for item in items:
        if item.get_closest_marker("lab"):  # booting a device takes its time
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("first_is_quick"):
            test = item.nodeid.partition("[")[0]
            if test in has_quick_case:
                item.add_marker(pytest.mark.slow)
            elif not item.get_closest_marker("slow"):
                has_quick_case.add(test)
    on_ci = os.environ.get("CI") == "true"
    for marker in ("convert", "sshd", "browser", "shared", "lab", "vm"):
        reason = _missing(marker)
        if reason is None:
            continue
        # A checkout without the real models is complete, also on CI; the virtual machine takes longer than a
        # change should wait.
        must_run = on_ci and marker not in ("shared", "vm")
        for item in items:
            if item.get_closest_marker(marker):
                if must_run:
                    item.stash[MISSING] = f"tests marked {marker} would skip on CI: {reason}"
                else:
                    item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that must not skip; in each test, since an error of a worker's collection is not shown."""
    if MISSING in item.stash:
        pytest.fail(item.stash[MISSING], pytrace=False)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    os.umask(0o022)  # a test that runs the agent in this process has changed it
    for name in list(os.environ):
        if name.startswith("EDGEQ_"):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _current_folder_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Fixtures of modules and sessions run before those of a test, and may record into a workspace as well.
    with contextlib.chdir(tmp_path_factory.mktemp("current-folder-of-fixtures")):
        yield


@pytest.fixture(autouse=True)
def _own_current_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # The Python API records into the current folder's workspace, which must not be the checkout.
    # `monkeypatch` restores the folder of its first chdir, after every other fixture of the test ended: a
    # folder removed here before that would leave all later tests without a current folder.
    folder = tmp_path_factory.getbasetemp() / "current-folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    monkeypatch.chdir(folder)


def _entries() -> set[str]:
    return {name for name in os.listdir(ROOT) if not name.endswith(CACHES)}


@pytest.fixture(autouse=True)
def _clean_checkout() -> Iterator[None]:
    before = _entries()
    yield
    if "PYTEST_XDIST_WORKER" not in os.environ:  # beside other processes, another test may be at fault
        assert not (left := _entries() - before), f"the test wrote into the checkout: {sorted(left)}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what the checkout holds."""
    session.stash[CHECKOUT] = _entries()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of several processes that left files in the checkout."""
    before = session.stash[CHECKOUT]
    left = _entries() - before
    if left and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(f"\nthe tests wrote into the checkout: {sorted(left)}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _documented_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Each document that a command of a test writes is compared with docs/json-output.md.
    write, wrong = Ui.emit, list[str]()

    def emit(ui: Ui, schema: str, body: Mapping[str, Any]) -> None:
        if schema in documented():
            wrong.extend(f"{schema}: {difference}" for difference in documented()[schema].difference(body))
        write(ui, schema, body)

    monkeypatch.setattr(Ui, "emit", emit)
    yield
    assert wrong == [], "a document differs from docs/json-output.md"


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with the real models; for tests marked `shared`."""
    return SHARED_DATA


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty workspace that is also the current folder."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Build folders that the whole run shares, also the workers of pytest-xdist."""
    return Once(root=shared_root(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def made_by(once: Once) -> Callable[[str], Path]:
    """Run a script of tests/converters that makes models, once a run: its name -> the folder.

    A process of its own keeps TensorFlow out of pytest.
    """

    def run(script: str) -> Path:
        path = Path(__file__).parent / "converters" / script
        return once.folder(path.stem, lambda folder: _run_script(path, folder))

    return run


def _run_script(path: Path, folder: Path) -> None:
    argv = [sys.executable, "-P", str(path), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
