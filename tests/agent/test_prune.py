"""Prune keeps by reference and keeps what it cannot read; disk limits are checked before writing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import Runtime, errors
from edgeq_agent.blobs import blob_store
from edgeq_agent.releases import agent_files
from edgeq_agent.split import ab_split
from edgeq_agent.storage import home, lock, process_token


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    home_folder = home.locate(str(tmp_path / "home"))
    home_folder.ensure()
    return home_folder


def test_an_empty_device_has_nothing_to_remove(device: Any) -> None:
    result = device.call("prune").result
    assert result["removed"] == {"releases": [], "blobs": [], "runtimes": [], "agents": []}
    assert result["freed_bytes"] == 0


@pytest.mark.slow
@pytest.mark.convert
def test_each_reference_keeps_a_release(serving: Any, int8_bundle: Any, float_bundle: Any) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request(soak_s=3600)).result["state"] == "soaking"
    kept = serving.call("prune").result["kept"]["releases"]
    assert kept[float_bundle.release] == ["tiny: serves", "tiny: target"]
    assert kept[int8_bundle.release] == ["tiny: rollback", "tiny: fallback"]
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release
    assert serving.call("prune", dry_run=True).result["removed"]["releases"] == [float_bundle.release]
    assert serving.call("pin", model="tiny", release=float_bundle.release).result["changed"]
    assert serving.call("prune").result["removed"]["releases"] == []
    assert serving.call("unpin", model="tiny", release=float_bundle.release).result["changed"]
    removed = serving.call("prune").result["removed"]
    own = {entry["sha256"] for entry in float_bundle.manifest["files"].values()}
    shared = {entry["sha256"] for entry in int8_bundle.manifest["files"].values()}
    assert removed["releases"] == [float_bundle.release]
    assert set(removed["blobs"]) == own - shared
    assert serving.call("activate", **float_bundle.request()).error["code"] == "EQ509"
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]


@pytest.mark.slow
@pytest.mark.convert
def test_the_arms_of_a_split_are_kept(serving: Any, int8_bundle: Any, float_bundle: Any) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release
    place = home.Home(str(serving.home))
    arms = [
        {"name": "a", "release": "current", "weight": 1},
        {"name": "b", "release": float_bundle.release[:12], "weight": 1},
    ]
    body = {"schema": ab_split.SCHEMA, "salt": "s", "arms": arms}
    path = serving.home / "models" / "tiny" / "split.json"
    for text in (json.dumps(body), "{"):  # one that cannot be read keeps all
        path.write_text(text)
        assert serving.call("prune", dry_run=True).result["removed"]["releases"] == []
    ab_split.remove(place, "tiny")
    assert serving.call("prune").result["removed"]["releases"] == [float_bundle.release]


@pytest.mark.slow
@pytest.mark.convert
def test_a_state_that_cannot_be_read_keeps_everything(
    serving: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    state = serving.home / "models" / "tiny" / "state.json"
    for damage in (b"{", None):
        if damage is None:
            state.unlink()
        else:
            state.write_bytes(damage)
        result = serving.call("prune").result
        assert result["removed"] == {"releases": [], "blobs": [], "runtimes": [], "agents": []}
        # The journal still names the release that a rollback leads to.
        assert result["kept"]["releases"][int8_bundle.release] == ["tiny: rollback"]
        (report,) = result["damaged"]
        assert report["file"] == "models/tiny/state.json"
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release


@pytest.mark.slow
@pytest.mark.convert
def test_pin_refuses_a_release_that_is_not_on_the_device(serving: Any, int8_bundle: Any) -> None:
    assert serving.call("pin", model="tiny", release="0" * 64).error["code"] == "EQ509"
    assert serving.call("pin", model="tiny", release="../x").error["code"] == "EQ512"
    assert serving.call("pin", model="nobody").error["code"] == "EQ510"
    assert serving.call("soak", model="nobody").error["code"] == "EQ510"
    assert not (serving.home / "models" / "nobody").exists()
    assert serving.call("pin", model="tiny").result["pins"] == [int8_bundle.release]
    assert serving.call("pin", model="tiny").result["changed"] is False


@pytest.mark.convert
@pytest.mark.parametrize(
    ("field", "value"),
    [("soak_s", -1), ("soak_s", "long"), ("soak_s", 1e9), ("failure_limit", -1), ("failure_limit", 1.5)],
)
def test_an_invalid_soak_is_refused(ready: Any, int8_bundle: Any, field: str, value: Any) -> None:
    error = ready.call("activate", **int8_bundle.request(**{"soak_s": 1, field: value})).error
    assert (error["code"], error["subject"]) == ("EQ512", field)
    assert not (ready.home / "models" / "tiny").exists()


def test_running_agents_and_the_newest_are_kept(place: home.Home) -> None:
    folder = Path(place.agents)
    folder.mkdir()
    for number in range(4):
        path = folder / f"edgeq-agent-{number}.pyz"
        path.write_bytes(b"x")
        os.utime(path, (number, number))  # 1970: the clock of such a device
    (folder / ".agent-dead").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"somebody's own")
    script = "import time; time.sleep(60)"
    with (
        (folder / ".agent-alive").open("wb"),
        subprocess.Popen([sys.executable, "-c", script, str(folder / "edgeq-agent-1.pyz")]) as running,
    ):
        try:
            while not any("edgeq-agent-1.pyz" in words for words in process_token.commands()):
                pass  # forked, but not yet running the program
            assert agent_files.removable(place) == [".agent-dead", "edgeq-agent-0.pyz", "edgeq-agent-2.pyz"]
        finally:
            running.kill()
    assert "edgeq-agent-1.pyz" in agent_files.removable(place)


@pytest.mark.parametrize(
    ("free", "code"),
    [(blob_store.RESERVE_INODES, "EQ501"), (blob_store.RESERVE_INODES + 1, None), (None, None)],
)
def test_inodes_are_checked_before_anything_is_written(
    place: home.Home, monkeypatch: pytest.MonkeyPatch, free: int | None, code: str | None
) -> None:
    real = os.statvfs(place.root)
    files = 0 if free is None else 1000
    fields = {name: getattr(real, name) for name in ("f_bavail", "f_frsize")}
    from types import SimpleNamespace

    shown = SimpleNamespace(**fields, f_files=files, f_favail=free or 0)
    monkeypatch.setattr(os, "statvfs", lambda _: shown)
    assert home.free_inodes(place.root) == free
    if code is None:
        blob_store.check_space(place, "blob", 1)
        return
    with pytest.raises(errors.AgentError) as refused:
        blob_store.check_space(place, "blob", 1)
    assert refused.value.code == code
    assert "inodes" in refused.value.problem


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Return a file system of its own in memory, and its mount options as they can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small tmpfs")
    options = [mount, "-t", "tmpfs", "-o", "size=8m,nr_inodes=60", "none", str(folder)]
    done = subprocess.run(options, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    yield folder, [mount, "-o"]
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_without_free_inodes_is_reported(tiny_disk: tuple[Path, list[str]], kit: Any) -> None:
    folder, _ = tiny_disk
    device = kit.Device(home=folder / "home")
    device.put(b"first")
    for number in range(60):
        try:
            (folder / f"filler-{number}").touch()
        except OSError:
            break
    error = device.call("put", b"next", sha256=hashlib.sha256(b"next").hexdigest(), size_bytes=4).error
    assert (error["code"], "inodes" in error["problem"]) == ("EQ501", True)
    (folder / "filler-0").unlink()
    assert list((device.home / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.convert
def test_a_device_with_a_read_only_disk_still_answers(
    tiny_disk: tuple[Path, list[str]], prepared_serving: Path, float_bundle: Any, kit: Any, tiny_data: Any
) -> None:
    folder, remount = tiny_disk
    device = kit.Device(home=folder / "home")
    shutil.copytree(prepared_serving, device.home, symlinks=True)
    float_bundle.send(device)
    assert device.call("activate", **float_bundle.request(soak_s=3600)).result["state"] == "soaking"
    assert device.call("probe").result["device_id"]
    state = device.home / "models" / "tiny" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "boot_id": "before"}))
    subprocess.run([*remount, "remount,ro", str(folder)], check=True)
    try:
        answered = device.call("probe")
        assert answered.result["runtimes"]
        assert answered.of("progress")[0]["step"] == "not-recovered"
        for verb, request in [("recover", {}), ("soak", {"model": "tiny"}), ("rollback", {"model": "tiny"})]:
            error = device.call(verb, **request).error
            assert (error["code"], "Read-only" in error["problem"]) == ("EQ503", True)
        assert device.call("bench", model="tiny", runs=1, min_seconds=0.01).result["release"]
        status = device.call("status").result["models"]["tiny"]
        assert (status["current"], status["state"]) == (float_bundle.release, "soaking")
        # The verb `infer` has to store its samples first; an application has them.
        error = device.call("infer", kit.npz(input_0=tiny_data[:3]), model="tiny").error
        assert (error["code"], "Read-only" in error["problem"]) == ("EQ503", True)
        with Runtime("tiny", str(device.home)) as rt:
            assert rt.infer(tiny_data[0]).shape == (3,)
            assert "disk is read-only" in rt.problems[0].text
    finally:
        subprocess.run([*remount, "remount,rw", str(folder)], check=True)
    assert device.call("recover").result["models"]["tiny"]["state"] == "rolled_back"


def test_a_lock_whose_owner_died_does_not_block(place: home.Home) -> None:
    """The kernel releases the lock with its process; the content of the file does not matter."""
    folder = str(Path(lock.__file__).parents[1])
    script = (
        "import os, sys; from edgeq_agent.storage import home, lock\n"
        "with lock.hold(home.Home(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": folder}
    subprocess.run([sys.executable, "-c", script, place.root], env=environment, check=False, timeout=60)
    for content in ("999999999", str(os.getpid()), process_token.token()):
        Path(place.lock).write_text(content)
        with lock.hold(place, wait_s=0):
            pass
