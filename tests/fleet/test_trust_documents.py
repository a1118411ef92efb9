"""The trust document through the fleet, over real SSH: migration, a leaked key, a lost root."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import Bundle, read_bundle, resigned
from edgeq.bundle.keys import find_private, new_key, workspace_key
from edgeq.bundle.signers import release_signers
from edgeq.cli import main
from edgeq.errors import DeviceError
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import DeployResult, deploy_one, plan_one
from edgeq.fleet.operations import rollback
from edgeq.fleet.trust import TrustStore, read_trust
from edgeq.testing.loopback import LoopbackDevice, loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device
from edgeq_agent import wire
from tests.fleet.servers import enrol_at

pytestmark = pytest.mark.slow
HIGHEST = wire.LARGEST_COUNTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A workspace with one enrolled device, and what its publisher does."""

    workspace: Path
    running: LoopbackDevice
    device: Device
    capsys: pytest.CaptureFixture[str]

    def keys(self, *argv: str, expected: int = 0) -> Any:
        self.capsys.readouterr()
        status = main(["--workspace", str(self.workspace), "keys", *argv, "--json"])
        out = self.capsys.readouterr().out
        assert status == expected, out
        return json.loads(out.splitlines()[-1])

    def bundle(self, seed: int, counter: int, *names: str) -> Bundle:
        """Return a bundle signed by these keys; by default as `edgeq bundle` would."""
        path = self.workspace / f"{seed}-{counter}.eqb"
        keys = [find_private(self.workspace, name) for name in names] or release_signers(self.workspace)
        return resigned(
            write_tiny_bundle(path, seed=seed, workspace=self.workspace), path, counter=counter, keys=keys
        )

    def deploy(self, bundle: Bundle) -> DeployResult:
        return deploy_one(self.device, bundle, workspace=self.workspace)

    def refused(self, bundle: Bundle) -> str:
        """Return the code with which the device refuses; the plan says the same before anything is sent."""
        planned = plan_one(self.device, bundle, workspace=self.workspace).plan
        with pytest.raises(DeviceError) as caught:
            self.deploy(bundle)
        assert [step.code for step in planned.blocked] == [caught.value.reported_code]
        return caught.value.reported_code

    @property
    def trust(self) -> TrustStore:
        with open_agent(self.device) as client:
            return read_trust(client)


@pytest.fixture
def site(tmp_path: Path, wheels_folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)
    workspace = tmp_path / "site"
    (workspace / ".edgeq").mkdir(parents=True)
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    with loopback_device(tmp_path / "device") as running:
        device = enrol_at(running, workspace).device
        yield Site(workspace=workspace, running=running, device=device, capsys=capsys)


def test_a_leaked_key_that_published_the_highest_counter(site: Site) -> None:
    """The device is migrated by a deploy, attacked, recovered by commands, and never goes back."""
    first = site.bundle(0, 17)
    assert site.deploy(first).changed
    assert site.trust.version == 0
    site.keys("init", "--changes", "signed")
    again = plan_one(site.device, first, workspace=site.workspace).plan
    assert [step.part.value for step in again.to_do] == ["trust"]
    assert site.deploy(first).changed is False
    assert (site.trust.version, site.trust.counters["double"].counter) == (1, 17)
    evil = site.bundle(1, HIGHEST)
    assert site.deploy(evil).changed
    assert site.refused(site.bundle(2, 18)) == "EQ535"
    # A login and the leaked key change nothing.
    stolen = site.keys("trust", "workspace", "--on", "pi", "--by", "workspace", expected=1)
    assert stolen["error"]["code"] == "EQ538"
    site.keys("recover", "workspace", "--replace-by", "next", "--reset-counter", "double=17")
    good = site.bundle(3, 18)
    assert [entry.key.id for entry in good.signed_by] == [find_private(site.workspace, "next").public.id]
    assert site.deploy(good).changed, "the document is sent first"
    assert (site.trust.version, site.trust.counters["double"].counter) == (2, 18)
    assert site.refused(site.bundle(4, 19, "workspace")) == "EQ533"
    assert site.refused(site.bundle(5, 17, "next")) == "EQ535"
    assert site.refused(site.bundle(1, HIGHEST, "workspace")) == "EQ533"
    with pytest.raises(DeviceError, match="withdrew") as caught:
        rollback(site.device, "double")
    assert caught.value.reported_code == "EQ507"
    shown = site.keys("list", "--on", "pi")["devices"][0]
    assert (shown["version"], shown["changes"]) == (2, "signed")


def test_a_device_without_keys_and_a_second_workspace(site: Site, tmp_path: Path) -> None:
    """Enrolment gives a new device the document; another workspace's document does not replace it."""
    other = tmp_path / "other"
    new_key(other, "theirs")
    main(["--workspace", str(other), "keys", "init", "--root", "theirs", "--release", "theirs"])
    enrol_at(site.running, other)
    assert site.trust.version == 0, "a device that trusts a key keeps it"
    argv = ["--workspace", str(other), "keys", "push", "--on", "pi"]
    assert main(argv) == 1
    site.keys("init")
    assert site.keys("push", "--on", "pi")["devices"][0]["changed"]
    assert site.keys("push", "--on", "pi")["devices"][0]["changed"] is False
    assert main(argv) == 1
    assert site.trust.root is not None
    assert site.trust.root.keys == (find_private(site.workspace, "root").public.id,)
    (site.running.home / ".edgeq" / "trust.json").unlink()
    enrol_at(site.running, other, replace=True)
    assert site.trust.active == (find_private(other, "theirs").public.id,)


def test_a_lost_root_is_replaced_by_the_login_where_the_policy_allows_it(site: Site) -> None:
    site.keys("init")
    site.keys("push", "--on", "pi")
    site.keys("init", "--restart", "--root", "root-2")
    error = site.keys("push", "--on", "pi", expected=1)["error"]
    assert (error["code"], "--by-login" in error["hint"]) == ("EQ532", True)
    assert site.keys("push", "--on", "pi", "--by-login")["devices"][0]["version"] == 2
    site.keys("change", "--changes", "signed")
    site.keys("push", "--on", "pi")
    site.keys("init", "--restart", "--root", "root-3")
    error = site.keys("push", "--on", "pi", "--by-login", expected=1)["error"]
    assert (error["code"], site.trust.version) == ("EQ538", 3)


def test_keys_of_single_devices_are_rotated_and_never_locked_out(site: Site) -> None:
    own = workspace_key(site.workspace).public.id
    site.keys("new", "second")
    site.keys("trust", "second", "--on", "pi")
    site.keys("policy", "--on", "pi", "--threshold", "2", "--changes", "signed")
    both = ("--by", "workspace", "--by", "second")
    error = site.keys("revoke", own, "--on", "pi", *both, expected=1)["error"]
    assert (error["code"], "nothing was sent" in error["message"]) == ("EQ538", True)
    assert "keys rotate" in error["hint"]
    site.keys("rotate", "workspace", "third", "--on", "pi", *both)
    assert set(site.trust.active) == {
        find_private(site.workspace, name).public.id for name in ("second", "third")
    }
    mistake = site.bundle(1, HIGHEST, "second", "third")
    assert site.deploy(mistake).changed
    site.keys("reset-counter", "double", "--to", "4", "--on", "pi", "--by", "second", "--by", "third")
    assert site.trust.counters["double"].counter == 4
    assert site.deploy(site.bundle(2, 5, "second", "third")).changed


def test_a_release_for_other_devices(site: Site, change: Callable[[Bundle, Path], Bundle]) -> None:
    own = site.device.device_id
    assert own is not None
    bundle = site.bundle(0, 1)
    for_others = change(bundle, site.workspace / "others.eqb")
    assert site.refused(for_others) == "EQ539"


@pytest.fixture
def change() -> Callable[[Bundle, Path], Bundle]:
    """Return a function that makes a bundle for a device that does not exist."""

    def targeted(bundle: Bundle, path: Path) -> Bundle:
        from edgeq.bundle.archive import write_bundle

        requires = {**bundle.manifest["requires"], "devices": ["0" * 32]}
        files = {name: bundle.open(name) for name in bundle.parsed.files}
        keys = release_signers(path.parent)
        write_bundle(path, {**bundle.manifest, "requires": requires}, files, keys=keys)
        return read_bundle(path)

    return targeted
