"""Devices of the lab as fixtures, and a session that fails when anything of it is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle
from edgeq.testing.tiny_bundle import write_tiny_bundle
from tests.lab import cache, leftovers, publisher
from tests.lab.access import make_key
from tests.lab.device import running
from tests.lab.session import Boot, Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The session; at its end nothing of it may be left."""
    # Not pytest's own folder: an ordinary user's sshd must be able to reach its files below it.
    scratch = Path(tempfile.mkdtemp(prefix="edgeq-lab-"))
    scratch.chmod(0o755)
    identity = scratch / "identity"
    make_key(identity, "lab")
    session = Lab(scratch=scratch, identity=identity)
    try:
        yield session
        namespaces = [name for device in session.devices for name in device.namespaces]
        leftover = leftovers.left(scratch, namespaces)
        assert not leftover, "left behind: " + "; ".join(leftover)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
def boot(lab: Lab) -> Iterator[Boot]:
    """Boot devices that run until the test ends."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda spec, name: stack.enter_context(running(lab.device(spec, name)))


@pytest.fixture(scope="session")
def wheels_folder() -> Path:
    """The lab's own cache of wheels: fetched once, not once a session."""
    folder = cache.FOLDER / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def site(workspace: Path, wheels_folder: Path) -> Path:
    """An empty workspace that shares the lab's wheels."""
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    return workspace


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Releases of the model `double`: two good ones, one with wrong golden outputs, two of some size."""
    folder, signer = tmp_path_factory.mktemp("releases"), publisher.folder()
    return {
        "first": write_tiny_bundle(folder / "first.eqb", seed=0, workspace=signer),
        "second": write_tiny_bundle(folder / "second.eqb", seed=1, workspace=signer),
        "wrong": write_tiny_bundle(folder / "wrong.eqb", seed=2, factor=3.0, workspace=signer),
        "large": write_tiny_bundle(folder / "large.eqb", seed=3, padding_bytes=1_500_000, workspace=signer),
    }


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `int8.tflite`, `samples.npz` and `bundle.eqb`, its golden outputs made here."""
    from edgeq.bundle.make import make_bundle

    folder = tmp_path_factory.mktemp("int8")
    script = Path(__file__).with_name("make_int8.py")
    argv = [sys.executable, "-P", str(script), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    make_bundle(
        folder / "bundle.eqb",
        model_file=folder / "int8.tflite",
        name="shapes",
        variant="int8",
        data=folder / "samples.npz",
        keys=[publisher.key()],
    )
    return folder
