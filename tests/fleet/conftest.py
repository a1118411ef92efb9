"""Devices to test against: the loopback device and OpenSSH's own sshd, each with a home of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.bundle.keys import workspace_key
from edgeq.testing.loopback import loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle as make
from tests.fleet.servers import Read, Server
from tests.fleet.sshd import account, sshd
from tests.once import Once

# Its own for each run: two at once must not take it from each other.
USER = f"edgeq-t{os.getpid()}"


@pytest.fixture(scope="session")
def loopback_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One loopback device for tests that do not disturb it."""
    with loopback_device(tmp_path_factory.mktemp("loopback")) as running:
        yield Server(
            host=running.host,
            port=running.port,
            user=running.user,
            identity=running.identity,
            fingerprint=running.fingerprint,
            home=running.home,
        )


@pytest.fixture(scope="session")
def sshd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenSSH's sshd with an ordinary user: a throw-away one where root runs the tests, else the caller."""
    with account(USER, or_caller=True) as person:
        home = person.home
        settings = (
            f"MaxStartups 50\nSetEnv HOME={home}\n"
            f'ForceCommand cd {home} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
        )
        folder = tmp_path_factory.mktemp("sshd")
        with sshd(folder, person.user, settings=settings, home=home) as running:
            yield running


@pytest.fixture(scope="session", params=["loopback", pytest.param("sshd", marks=pytest.mark.sshd)])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn."""
    chosen: Server = request.getfixturevalue(f"{request.param}_server")
    return chosen


@pytest.fixture(scope="session")
def wheels_folder(once: Once) -> Path:
    """One cache of wheels for all tests: 38 MB that are fetched once."""
    return once.folder("wheels", lambda empty: None)


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace whose key signs the bundles."""
    folder = tmp_path_factory.mktemp("publisher")
    workspace_key(folder)
    return folder


@pytest.fixture
def site(workspace: Path, wheels_folder: Path, publisher: Path) -> Path:
    """A workspace that has the wheels and the publisher's key already, and no devices."""
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    shutil.copytree(publisher / ".edgeq" / "keys", workspace / ".edgeq" / "keys")
    return workspace


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, publisher: Path) -> dict[str, Path]:
    """Paths of bundles: two good releases of a model, one with wrong golden outputs, one for another kind."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {name: folder / f"{name}.eqb" for name in ("first", "second", "wrong", "coral", "huge", "padded")}
    make(made["first"], seed=0, workspace=publisher)
    make(made["second"], seed=1, workspace=publisher)
    make(made["wrong"], seed=2, factor=3.0, workspace=publisher)
    make(made["coral"], seed=3, kinds=("coral",), workspace=publisher)
    make(made["huge"], seed=4, free_bytes=2**48, workspace=publisher)
    make(made["padded"], seed=5, padding_bytes=6_000_000, workspace=publisher)
    return made


@pytest.fixture
def read(bundles: dict[str, Path]) -> Read:
    """A function that reads one of the bundles."""

    def read_one(name: str) -> Bundle:
        return read_bundle(bundles[name])

    return read_one
