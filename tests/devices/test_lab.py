"""The lab itself: what it builds it finds again, what it starts it ends, and what is left behind is seen."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import cache, leftovers, needs
from tests.lab.device import LabDevice, Spec, processes_in, running
from tests.lab.roots import Recipe, root_of
from tests.lab.session import Lab


def test_another_recipe_or_another_builder_has_another_name(tmp_path: Path) -> None:
    source = tmp_path / "builder.py"
    source.write_text("one")
    recipe = dataclasses.asdict(Recipe(arch="arm64"))
    first = cache.key_of(recipe, str(source))
    assert cache.key_of(recipe, str(source)) == first
    assert cache.key_of(dataclasses.asdict(Recipe(arch="armhf")), str(source)) != first
    source.write_text("two")
    assert cache.key_of(recipe, str(source)) != first


def test_a_build_that_fails_is_never_found(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        (place / "half").touch()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        cache.built("root", "1", fail, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["root.lock"]
    made = cache.built("root", "1", lambda place: (place / "whole").touch(), folder=tmp_path)
    assert cache.built("root", "1", fail, folder=tmp_path) == made
    assert (made / "whole").exists()


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "SBIN", "/nowhere")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    reason = needs.missing(("mmdebstrap", "nft"))
    assert reason == "not installed: mmdebstrap, nft (apt-get install mmdebstrap nftables)"
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert needs.missing(()) == "the lab's namespaces need root"


def test_a_process_that_is_left_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.0)
    assert leftovers.left(tmp_path, []) == []
    with subprocess.Popen(["sleep", "60"], env={"HOME": str(tmp_path)}) as process:
        try:
            (line,) = leftovers.left(tmp_path, [])
            assert line == f"process {process.pid} sleep"
        finally:
            process.kill()


@pytest.mark.lab
def test_a_mount_and_a_network_that_are_left_behind_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.0)
    name = f"eqplant{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab", tmp_path], check=True)
    try:
        leftover = [*leftovers.left(tmp_path, []), *leftovers.left_on_network("eqplant")]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert leftover == [f"mount {tmp_path}", f"namespace {name}"]
    assert leftovers.left(tmp_path, []) == leftovers.left_on_network("eqplant") == []


@pytest.mark.lab
def test_a_device_that_does_not_boot_leaves_nothing(lab: Lab) -> None:
    spec = Spec(layers=(root_of(Recipe(arch="amd64")),), sshd=("/usr/bin/false",))
    device = lab.device(spec, "dead")
    with pytest.raises(RuntimeError, match="ended before it answered"), running(device):
        raise AssertionError("it cannot boot")
    assert not device.running


@pytest.mark.lab
def test_a_device_ends_with_the_tests_that_are_killed(lab: Lab, project_root: Path) -> None:
    folder = lab.scratch / "killed"
    code = (
        "import sys, time; from pathlib import Path; from tests.lab.device import *; "
        f"spec = Spec(layers=(Path({str(root_of(Recipe(arch='amd64')))!r}),)); "
        f"identity = Path({str(lab.identity)!r}); "
        f"device = LabDevice(spec, Path({str(folder)!r}), name='killed', identity=identity); "
        "device.boot(); print(*device.namespaces, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=project_root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        namespaces = process.stdout.readline().decode().split()
        assert len(namespaces) == 1
        assert processes_in(namespaces)
        process.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while processes_in(namespaces):
        assert time.monotonic() < deadline_s, "the device lives on"
        time.sleep(0.05)


@pytest.mark.lab
def test_what_a_device_writes_is_its_own_and_survives_a_power_cut(lab: Lab) -> None:
    from edgeq.errors import EdgeqError

    root = root_of(Recipe(arch="amd64"))
    before = {path.name for path in (root / "home/pi").iterdir()}
    device: LabDevice = lab.device(Spec(layers=(root,)), "own")
    with running(device):
        (device.home / "kept").write_text("kept")
        device.cut()
        with pytest.raises(EdgeqError):
            device.access.enrol(lab.scratch)
        device.boot()
        assert (device.home / "kept").read_text() == "kept"
    assert {path.name for path in (root / "home/pi").iterdir()} == before
