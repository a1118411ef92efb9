"""Attacks through the fleet, over real SSH: refused by code, nothing is sent, and the model serves on."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq.bundle.archive import read_bundle
from edgeq.bundle.keys import PublicKey, find_private, new_key, workspace_key
from edgeq.cli import main
from edgeq.errors import ConfigError, DeviceError, EdgeqError, UsageError
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, make_plan, plan_one
from edgeq.fleet.enrol import enrol
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.operations import rollback, status
from edgeq.fleet.plan import Action
from edgeq.fleet.trust import TrustChange, change, pin, read_trust
from edgeq.testing.loopback import LoopbackDevice, loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device
from tests.fleet.servers import enrol_at

SHELL = (
    "x; touch PWNED",
    "$(touch PWNED)",
    "`touch PWNED`",
    "a|touch PWNED",
    "a\ntouch PWNED",
    "a' 'b",
    'a"b',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """A device on which release 2 of the model `double` serves, and the workspace that published it."""

    workspace: Path
    running: LoopbackDevice
    device: Device

    @property
    def home(self) -> Path:
        return self.running.home / ".edgeq"

    def bundle(self, name: str, **options: Any) -> Any:
        path = self.workspace / f"{name}.eqb"
        write_tiny_bundle(path, **{"workspace": self.workspace, **options})
        return read_bundle(path)

    def deploy(self, bundle: Any) -> Any:
        return deploy_one(self.device, bundle, workspace=self.workspace)

    def current(self) -> str:
        return (self.home / "models" / "double" / "current").resolve().name


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, wheels_folder: Path) -> Iterator[Attacked]:
    pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)
    workspace = tmp_path_factory.mktemp("attacked")
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    with loopback_device(tmp_path_factory.mktemp("device")) as running:
        enrolment = enrol_at(running, workspace)
        assert enrolment.pinned
        assert enrolment.trusts == (workspace_key(workspace).public.id,)
        target = Attacked(workspace=workspace, running=running, device=enrolment.device)
        for seed in (0, 1):
            assert target.deploy(target.bundle(f"release-{seed + 1}", seed=seed)).changed
        yield target


@pytest.fixture
def still_serves(attacked: Attacked) -> Iterator[Callable[[], None]]:
    before = attacked.current()
    blobs = set(os.listdir(attacked.home / "blobs" / "sha256"))

    def check() -> None:
        assert attacked.current() == before
        serving = status(attacked.device).models["double"]
        assert (serving.current, serving.state) == (before, "committed")
        assert set(os.listdir(attacked.home / "blobs" / "sha256")) == blobs, "nothing was sent"

    yield check
    check()


def blocked(attacked: Attacked, bundle: Any, code: str) -> DeviceError:
    """Assert that the plan reports the code before anything is sent, and that the device reports it, too."""
    planned = plan_one(attacked.device, bundle, workspace=attacked.workspace)
    assert planned.plan.blocked[0].code == code
    with pytest.raises(DeviceError) as caught:
        attacked.deploy(bundle)
    assert caught.value.reported_code == code
    with open_agent(attacked.device) as client, pytest.raises(DeviceError) as refused:
        client.call(
            "activate",
            {
                "model": bundle.model,
                "release": bundle.release,
                "manifest": bundle.manifest,
                "signatures": list(bundle.signatures),
                "runtime": planned.runtime.digest,
            },
        )
    assert refused.value.reported_code == code
    return caught.value


@pytest.mark.slow
def test_an_unsigned_release_is_refused(attacked: Attacked, still_serves: Any) -> None:
    signed = attacked.bundle("unsigned", seed=2)
    blocked(attacked, replace(signed, signed_by=()), "EQ531")


@pytest.mark.slow
def test_a_bundle_of_another_workspace(attacked: Attacked, still_serves: Any, tmp_path: Path) -> None:
    error = blocked(attacked, attacked.bundle("foreign", seed=2, workspace=tmp_path), "EQ532")
    assert workspace_key(tmp_path).public.id in error.message
    assert "edgeq keys trust" in error.message


@pytest.mark.slow
def test_an_older_release_is_blocked(attacked: Attacked, still_serves: Any) -> None:
    """The old bundle file, still rightly signed; and another release under a counter that was used."""
    blocked(attacked, read_bundle(attacked.workspace / "release-1.eqb"), "EQ535")
    blocked(attacked, attacked.bundle("same-counter", seed=7, counter=2), "EQ535")


@pytest.mark.slow
def test_a_swapped_manifest_is_refused(attacked: Attacked, still_serves: Any) -> None:
    """The signature of one release with another: no plan can see it, the device does."""
    other = attacked.bundle("swapped", seed=3)
    served = read_bundle(attacked.workspace / "release-2.eqb")
    swapped = replace(other, signed_by=served.signed_by)
    with open_agent(attacked.device) as client:
        planned = make_plan(client, swapped, workspace=attacked.workspace)
        request = {
            "model": swapped.model,
            "release": swapped.release,
            "manifest": swapped.manifest,
            "signatures": list(swapped.signatures),
            "runtime": planned.runtime.digest,
        }
        with pytest.raises(DeviceError) as caught:
            client.call("activate", request)
    assert caught.value.reported_code == "EQ534"


@pytest.mark.slow
def test_a_second_enrolment_gives_no_right_to_publish(
    attacked: Attacked, still_serves: Any, tmp_path: Path
) -> None:
    """Whoever may log in may enrol the device in a workspace of their own; whom it trusts stays as it is."""
    other = enrol_at(attacked.running, tmp_path, "mine-now")
    assert not other.pinned
    assert other.trusts == (workspace_key(attacked.workspace).public.id,)
    with pytest.raises(DeviceError) as caught:
        deploy_one(
            other.device,
            attacked.bundle("theirs", seed=2, workspace=tmp_path),
            workspace=attacked.workspace,
        )
    assert caught.value.reported_code == "EQ532"


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELL)
def test_shell_metacharacters_in_every_name(
    attacked: Attacked, still_serves: Any, tmp_path: Path, name: str
) -> None:
    """Refused where they are typed; what is free text on the way (the agent's folder, the user) is quoted."""
    running = attacked.running
    login = partial(enrol, tmp_path, port=running.port, user=running.user, identity=running.identity)
    with pytest.raises(UsageError):
        login(name=name, host=running.host)
    with pytest.raises(UsageError):
        login(name="pi", host=name)
    with pytest.raises(EdgeqError):
        new_key(tmp_path, name)
    for python in (name, f"python3 {name}"):
        with pytest.raises((DeviceError, ConfigError, UsageError)):
            login(name="pi", host=running.host, python=python)
    with open_agent(attacked.device) as client:
        bad = PublicKey(raw=workspace_key(tmp_path).public.raw, name=name)
        for refused in (TrustChange(add=[bad]), TrustChange(revoke=[name])):
            with pytest.raises(DeviceError) as caught:
                change(client, refused)
            assert caught.value.reported_code == "EQ512"
        with pytest.raises(DeviceError) as caught:
            client.call("rollback", {"model": name})
        assert caught.value.reported_code == "EQ512"
    assert not list(running.home.rglob("PWNED"))
    assert not Inventory.load(tmp_path).devices


@pytest.mark.slow
@pytest.mark.parametrize("home", ["edgeq; touch PWNED", "$(touch PWNED)", "`touch PWNED`", "a' b"])
def test_the_agents_folder_is_a_name_and_no_command(attacked: Attacked, tmp_path: Path, home: str) -> None:
    running = attacked.running
    device = enrol_at(running, tmp_path, home=home).device
    assert status(device).models == {}
    assert (running.home / home / "trust.json").exists(), "the folder has that very name"
    assert not list(running.home.rglob("PWNED"))
    shutil.rmtree(running.home / home)


def secrets_of(workspace: Path) -> list[bytes]:
    """Return the forms in which the workspace's private key could turn up somewhere."""
    path = workspace / ".edgeq" / "keys" / "workspace"
    private = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    seed = private.private_bytes_raw()
    lines = [line for line in path.read_bytes().splitlines() if not line.startswith(b"-----")]
    forms = [seed, base64.b64encode(seed).rstrip(b"="), seed.hex().encode()]
    return [*forms, *(line for line in lines[1:] if len(line) > 40)]


@pytest.mark.slow
def test_secrets_are_in_no_argument_no_environment_and_no_log(attacked: Attacked, tmp_path: Path) -> None:
    """Everything that runs during a deploy is looked at, then everything that it left behind."""
    secrets = secrets_of(attacked.workspace)
    assert len(secrets) >= 5
    identity = attacked.running.identity.read_bytes().splitlines()[2]
    seen: dict[bytes, bytes] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit():
                    continue
                try:
                    seen[(entry / "cmdline").read_bytes()] = (entry / "environ").read_bytes()
                except OSError:
                    continue
            time.sleep(0.003)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert attacked.deploy(attacked.bundle("watched", seed=10)).changed
    finally:
        done.set()
        watcher.join()
    assert any(b"\0activate\0" in words for words in seen), "the activation was among what was looked at"
    for words, environment in seen.items():
        for secret in (*secrets, identity):
            assert secret not in words
            assert secret not in environment
    assert rollback(attacked.device, "double").changed
    places = [attacked.running.home, attacked.running.folder / "device.log", attacked.workspace]
    looked_at = 0
    for place in places:
        for path in [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]:
            if path.parent.name == "keys" or "runtime" in path.parts or "wheels" in path.parts:
                continue
            content = path.read_bytes()
            looked_at += 1
            assert not [secret for secret in secrets if secret in content], path
    assert looked_at > 10
    assert "SigningKey" in repr(workspace_key(attacked.workspace))
    assert "_private" not in repr(workspace_key(attacked.workspace))


@pytest.mark.slow
def test_file_modes(attacked: Attacked) -> None:
    """After a whole enrolment and deploy, the runtime included, the device's folder is its owner's alone."""
    seen = set()
    for folder, _, names in os.walk(attacked.home):
        assert stat.S_IMODE(os.lstat(folder).st_mode) == 0o700, folder
        for name in names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            seen.add(name)
            if not stat.S_ISLNK(mode):
                assert stat.S_IMODE(mode) & 0o077 == 0, (path, oct(mode))
    assert {"trust.json", "journal", "runtime.json", "pyvenv.cfg"} <= seen
    keys = attacked.workspace / ".edgeq" / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys / "workspace").stat().st_mode) == 0o600


def run(*argv: str, expected: int = 0) -> None:
    assert main(list(argv)) == expected


@pytest.mark.slow
def test_keys_are_rotated_by_commands(attacked: Attacked, capsys: pytest.CaptureFixture[str]) -> None:
    """A new key is trusted, the old one revoked; bundles of the old one are refused, what serves goes on."""
    workspace = str(attacked.workspace)
    at = ["--workspace", workspace, "keys"]
    old = workspace_key(attacked.workspace).public.id
    serving = attacked.current()
    run(*at, "new", "next")
    run(*at, "trust", "next", "--on", "pi", "--by", "workspace")
    run(*at, "policy", "--on", "pi", "--changes", "signed")
    capsys.readouterr()
    run(*at, "revoke", old, "--on", "pi", "--json", expected=1)
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "EQ538"
    run(*at, "revoke", old, "--on", "pi", "--by", "next")
    run(*at, "list", "--on", "pi", "--json")
    (entry,) = json.loads(capsys.readouterr().out.splitlines()[-1])["devices"]
    states = {key["id"]: key["state"] for key in entry["keys"]}
    new = find_private(attacked.workspace, "next")
    assert states == {old: "revoked", new.public.id: "active"}
    blocked(attacked, attacked.bundle("by-the-old-key", seed=20), "EQ533")
    assert attacked.current() == serving
    from edgeq.bundle.archive import resigned

    path = attacked.workspace / "by-the-new-key.eqb"
    signed = resigned(read_bundle(attacked.workspace / "by-the-old-key.eqb"), path, counter=21, keys=[new])
    assert attacked.deploy(signed).changed
    with open_agent(attacked.device) as client:
        assert pin(client, [workspace_key(attacked.workspace).public]).changed is False
        assert read_trust(client).counters["double"].counter == 21
    assert Action.BLOCKED not in {
        step.action for step in plan_one(attacked.device, signed, workspace=attacked.workspace).plan.steps
    }


@pytest.mark.slow
def test_members_of_a_bundle_that_escape(attacked: Attacked, still_serves: Any, tmp_path: Path) -> None:
    """A bundle with more in it than its manifest says never gets as far as a device."""
    for member in ("files/../../PWNED", "/tmp/PWNED", "../PWNED", "files/x\\..\\PWNED"):
        path = tmp_path / "evil.eqb"
        shutil.copy(attacked.workspace / "release-2.eqb", path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, "#!/bin/sh")
        argv = ["--workspace", str(attacked.workspace), "deploy", str(path), "--to", "pi", "--yes"]
        run(*argv, expected=1)
    assert not Path("/tmp/PWNED").exists()
    assert not list(tmp_path.rglob("PWNED"))
