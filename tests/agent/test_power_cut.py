"""Stop after every file operation: a complete release serves, responses hold, and a retry succeeds."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeq_agent.autostart import command
from edgeq_agent.errors import AgentError
from edgeq_agent.runtimes import venv
from tests.agent.fake_runtime import fake_wheel

pytestmark = pytest.mark.convert

NAMES = (
    *("install", "update", "soak", "failed soak", "rollback", "recover", "prune", "pin"),
    *("build", "rebuild", "service", "no service"),
    *("stage", "split", "end split", "promote"),
)


@pytest.fixture(scope="module")
def lab(
    injection: SimpleNamespace,
    tmp_path_factory: pytest.TempPathFactory,
    int8_bundle: Any,
    float_bundle: Any,
    tiny_data: Any,
    kit: Any,
) -> Iterator[Any]:
    """Return the scenarios, ready to be cut."""
    payload = tmp_path_factory.mktemp("cut") / "payload.npz"
    payload.write_bytes(kit.npz(input_0=tiny_data[:3]))
    # In memory where there is such a folder: thousands of small file systems are written.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=memory) as root:
        injection.machine.Remembered(patch)
        # Neither this machine's crontab nor its systemd takes part, and the start itself is tested elsewhere.
        patch.setattr(command, "run", lambda *_, **__: command.Output(0, ""))
        patch.setattr(venv, "make_venv", injection.machine.make_venv)
        machine = injection.machine.Machine(Path(root) / "disk", injection.page_cache, patch)
        scenarios = _scenarios(injection, machine, int8_bundle, float_bundle, kit)
        yield injection.lab.Lab(injection, machine, payload, scenarios)


def _scenarios(injection: SimpleNamespace, machine: Any, old: Any, new: Any, kit: Any) -> list[Any]:
    make = injection.scenarios

    def after(tree: dict[str, Any], *steps: Any) -> dict[str, Any]:
        machine.load(tree)
        for step in steps:
            answer = step.act(machine)
            assert answer is None or answer["event"] == "result", answer
        return injection.page_cache.read_tree(machine.root)  # type: ignore[no-any-return]

    def puts(bundle: Any) -> list[Any]:
        return [make.put(data) for data in bundle.files.values()]

    trusting = kit.change_of(kit.PUBLISHER)
    installed = after({}, *make.install(old, kit.RUNTIME, trusting, {}).steps)
    stocked = after(installed, *puts(new))
    on_trial = after(stocked, make.verb("activate", **new.request(soak_s=60)))
    updated = after(stocked, make.verb("activate", **new.request()))

    state = "home/models/tiny/state.json"
    body = json.loads(on_trial[state])
    interrupted = {**on_trial, state: json.dumps({**body, "state": "rolling_back", "tries": 1}).encode()}

    staged = after(stocked, make.verb("stage", **new.request()))
    divided = after(staged, make.verb("split", **injection.experiments.arms(old, new)))

    third = kit.bundle_from(
        {**old.files, "reference.json": new.files["reference.json"] + b" "}, samples=20, name="tiny"
    )
    crowded = after(installed, *puts(third), make.verb("activate", **third.request()))
    crowded = after(crowded, *puts(new), make.verb("activate", **new.request()), make.put(b"spare" * 100))
    unused = "home/runtime/" + "9" * 64
    crowded |= {unused: None, unused + "/runtime.json": b"{}", unused + "/lib": None, unused + "/lib/a": b"a"}
    crowded |= {
        "home/agent": None,
        "home/agent/edgeq-agent-1.pyz": b"1",
        "home/agent/edgeq-agent-2.pyz": b"2",
    }
    crowded |= {"home/agent/.agent-x": b"half"}
    gone = [
        "releases/" + old.release,
        unused.partition("/")[2],
        "agent/edgeq-agent-1.pyz",
        "agent/.agent-x",
    ]
    stays = ["releases/" + third.release, "releases/" + new.release, "agent/edgeq-agent-2.pyz"]
    stays.append("runtime/" + kit.RUNTIME)
    manned = {**installed, "home/agent": None, "home/agent/edgeq-agent-1.pyz": b"1"}
    started = after(manned, *make.service(old.release, manned, enable=True).steps)
    wheel, made = fake_wheel(), "8" * 64
    sent = after(installed, make.put(wheel))
    built = after(sent, *make.build(old.release, made, wheel, sent, broken=False).steps)
    (broken,) = [path for path in built if path.endswith(make.BROKEN)]
    damaged = {**built, broken: b"raise ImportError"}
    return [
        make.install(old, kit.RUNTIME, trusting, {}),
        make.update(old, new, installed),
        make.soak(old, new, stocked),
        make.failed_soak(old, new, on_trial),
        make.rollback(old, new, updated),
        make.recover(old, new, interrupted),
        make.prune(old, new, crowded, gone, stays, [third.release]),
        make.pin(old, new, updated),
        injection.experiments.stage(old, new, stocked),
        injection.experiments.split(old, new, staged),
        injection.experiments.end_split(old, new, divided),
        injection.experiments.promote(old, new, divided),
        make.service(old.release, manned, enable=True),
        make.service(old.release, started, enable=False),
        make.build(old.release, made, wheel, sent, broken=False),
        make.build(old.release, made, wheel, damaged, broken=True),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_after_every_operation(lab: Any, name: str) -> None:
    operations = lab.operations(name)
    assert len(operations) >= 5
    for at, operation in enumerate(operations, 1):
        lab.cut(name, at, "kept")
        if operation in ("write", "write_at"):
            lab.cut(name, at, "half")
    lab.cut(name, len(operations) + 1, "kept")


HOWS = ("lost", "torn", "mixed 1", "mixed 2", "mixed 3")
# Of scenarios with many operations, one random mixture after each says as much as three.
LONG = ("install", "update", "soak", "promote", "rebuild")
CUTS = [(name, how) for name in NAMES for how in (HOWS[:3] if name in LONG else HOWS)]
STRIDE = 8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), CUTS)
def test_power_cut_after_every_operation(lab: Any, name: str, how: str) -> None:
    for at in range(1, len(lab.operations(name)) + 2):
        lab.cut(name, at, how)


REFUSALS = [(errno.ENOSPC, False), (errno.ENOSPC, True), (errno.EROFS, True), (errno.EIO, False)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "lasting"), REFUSALS, ids=["full once", "full", "read-only", "broken once"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_error_at_every_operation(lab: Any, name: str, error: int, lasting: bool) -> None:
    count = len(lab.operations(name))
    refused = sum(lab.refuse(name, at, error, lasting=lasting) for at in range(1, count + 1))
    assert refused > count / 3


@pytest.mark.slow
def test_every_sync_is_needed(lab: Any) -> None:
    """With any one of the syncs left out, a power cut does harm that the tests above see."""
    places = {place for name in NAMES for place in lab.syncs(name)}
    assert len(places) >= 12
    needless = []
    for place in sorted(places):
        caught = _harm(lab, place)
        sys.stdout.write(f"without {place}: {caught or 'nothing happens'}\n")
        if caught is None:
            needless.append(place)
    assert needless == []


def _harm(lab: Any, place: str) -> str | None:
    cuts = [(name, how) for name, how in CUTS if place in lab.syncs(name)]
    for name, how in sorted(cuts, key=lambda cut: len(lab.operations(cut[0]))):  # the short scenarios first
        # From the end: a response that does not hold is the most common damage. In strides: most damage can
        # be done after many operations in a row.
        end = len(lab.operations(name)) + 1
        for at in (at for first in range(STRIDE) for at in range(end - first, 0, -STRIDE)):
            try:
                lab.cut(name, at, how, deaf=place)
            except (AssertionError, OSError, ValueError, AgentError) as error:
                return f"{name}, {how} after operation {at}: {_line(error)}"
    return None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def test_the_simulated_disk_behaves_like_a_disk(injection: SimpleNamespace, tmp_path: Path) -> None:
    """Nothing synced: gone. The file alone: no name. Both: there. The name alone: an empty file."""
    from edgeq_agent.storage import disk

    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_bytes(b"old")
    for file, folder, expected in [
        (False, False, {"old": b"old"}),
        (True, False, {"old": b"old"}),
        (False, True, {"old": b""}),
        (True, True, {"old": b"new"}),
    ]:
        injection.page_cache.write_tree(root, {"old": b"old"})
        cache = injection.page_cache.PageCache(root)
        with disk.use(injection.machine.FaultyDisk(cache, None)):
            with disk.create(str(root / "new")) as stream:
                stream.write(b"new")
                if file:
                    stream.sync()
            disk.replace(str(root / "new"), str(root / "old"))
            if folder:
                disk.sync_folder(str(root))
        assert cache.after_cut("lost", None) == expected
        assert injection.page_cache.read_tree(root) == {"old": b"new"}
