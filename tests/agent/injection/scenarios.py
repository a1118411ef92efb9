"""Fault scenarios: the device before, the calls to make, and what must hold after each."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq_agent import errors, wire
from edgeq_agent.activation import candidates, counters, state_record
from edgeq_agent.autostart import record
from edgeq_agent.releases import pins
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import files, home, journal
from edgeq_agent.trust import trust_store

Check = Callable[[Any], None]
# What is damaged in a runtime that is broken.
BROKEN = "tflite_runtime/interpreter.py"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that happens.

    Attributes:
        act: does it; returns the last message of the agent's answer, or None.
        check: must hold from the response on, also after a power cut.
    """

    act: Callable[[Any], dict[str, Any] | None]
    check: Check = field(default=lambda machine: None)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A call, or a few in a row.

    Attributes:
        before: what is on the disk.
        serves: the releases that may serve at any moment (None: nothing does).
        ends: the release that serves when all is done, and the state.
        always: must hold after every fault.
    """

    name: str
    before: dict[str, Any]
    steps: list[Step]
    serves: tuple[str | None, ...]
    ends: tuple[str, str]
    settled: Check = field(default=lambda machine: None)
    always: Check = field(default=lambda machine: None)


def current(machine: Any) -> str | None:
    link = machine.home / "models" / "tiny" / "current"
    return link.readlink().name if link.is_symlink() else None


def state_of(machine: Any) -> dict[str, Any]:
    path = machine.home / "models" / "tiny" / "state.json"
    return json.loads(path.read_text()) if path.exists() else {"state": "none"}


def serves(release: str) -> Check:
    def check(machine: Any) -> None:
        assert current(machine) == release, "the response says that it serves"

    return check


def committed(release: str) -> Check:
    def check(machine: Any) -> None:
        assert current(machine) == release, "the response says committed"
        assert state_of(machine)["state"] == state_record.COMMITTED, "the response says committed"
        assert state_of(machine)["target"] == release
        _journal_says(machine, release, state_record.COMMITTED)
        manifest = files.read_json(str(machine.home / "releases" / release / "manifest.json"))
        store = trust_store.load(home.Home(str(machine.home)))
        assert store is not None
        floor = store.counters.get("tiny")
        assert floor is not None, "an older release could come back"
        assert floor.counter >= manifest["counter"], "an older release could come back"

    return check


def _journal_says(machine: Any, release: str, state: str) -> None:
    entries = journal.tail(home.Home(str(machine.home)), 50)
    assert any(e.get("release") == release and e.get("state") == state for e in entries), "not in the journal"


def journal_has(machine: Any, event: str) -> None:
    """Check that the device's journal has an event."""
    entries = journal.tail(home.Home(str(machine.home)), 50)
    assert any(entry["event"] == event for entry in entries), f"{event} is not in the journal"


def put(data: bytes) -> Step:
    sha = hashlib.sha256(data).hexdigest()

    def check(machine: Any) -> None:
        blob = machine.home / "blobs" / "sha256" / sha
        assert blob.exists(), "the response says stored"
        assert blob.read_bytes() == data, "the response says stored"

    return Step(act=lambda machine: machine.call("put", data, sha256=sha, size_bytes=len(data)), check=check)


def upload(*contents: bytes) -> Step:
    """All of them in one call, in chunks so small that each has a few."""
    size = wire.MIN_CHUNK_BYTES
    shas = {hashlib.sha256(data).hexdigest(): data for data in contents}
    offers = [{"sha256": sha, "size_bytes": len(data), "chunk_bytes": size} for sha, data in shas.items()]
    body = b""
    for number, data in enumerate(shas.values()):
        for chunk, start in enumerate(range(0, len(data), size)):
            piece = data[start : start + size]
            body += wire.frame_header(wire.AS_IT_IS, number, chunk, len(piece)) + piece
        body += wire.frame_header(wire.DONE, number, 0, 0)

    def check(machine: Any) -> None:
        for sha, data in shas.items():
            blob = machine.home / "blobs" / "sha256" / sha
            assert blob.exists(), "the response says stored"
            assert blob.read_bytes() == data, "the response says stored"

    return Step(act=lambda machine: machine.call("upload", body, blobs=offers), check=check)


def verb(name: str, check: Check = lambda machine: None, **request: Any) -> Step:
    return Step(act=lambda machine: machine.call(name, **request), check=check)


def wait(seconds: float) -> Step:
    def act(machine: Any) -> None:
        machine.clock.seconds += seconds

    return Step(act=act)


def fail(release: str, **counts: int) -> Step:
    """The application adds to the counters of the soaking release."""

    def act(machine: Any) -> dict[str, Any] | None:
        if current(machine) != release:
            return None
        try:
            with machine.inside():
                counters.add(home.Home(str(machine.home)), "tiny", release, **counts)
        except OSError as error:  # the application sees the error
            refused = errors.from_os(error)
            assert refused is not None
            return refused.message()
        return None

    return Step(act=act)


def install(bundle: Any, runtime: str, change: dict[str, Any], before: dict[str, Any]) -> Scenario:
    """Install on a new device: probe, trust a key, upload blobs, build a runtime, activate."""

    def known(machine: Any) -> None:
        assert files.read_json(str(machine.home / "device.json"))["device_id"], "the response has an id"

    def trusted(machine: Any) -> None:
        kept = trust_store.load(home.Home(str(machine.home)))
        assert kept is not None, "the response says trusted"
        assert len(kept.active) == 1, "the response says trusted"
        journal_has(machine, "trust")

    def check_runtime(machine: Any) -> None:
        entry = machine.home / "runtime" / runtime / "runtime.json"
        assert entry.exists(), "the response says that the runtime is there"
        assert entry.stat().st_size > 0, "the response says that the runtime is there"
        journal_has(machine, "runtime")

    # The blobs first, as the host sends them: building a runtime syncs everything.
    steps = [verb("probe", known), verb("trust", trusted, change=change)]
    steps.extend(put(data) for data in bundle.files.values())
    steps.append(verb("runtime", check_runtime, digest=runtime, wheels=[], modules=["ai_edge_litert"]))
    steps.append(verb("activate", committed(bundle.release), **bundle.request()))
    return Scenario(
        name="install",
        before=before,
        steps=steps,
        serves=(None, bundle.release),
        ends=(bundle.release, state_record.COMMITTED),
    )


def build(release: str, digest: str, wheel: bytes, before: dict[str, Any], *, broken: bool) -> Scenario:
    """A runtime is unpacked from its wheels; a `broken` one is there already.

    What does not prove itself may have had a busy moment: until the new one is there, the old one stays.
    """
    sha = hashlib.sha256(wheel).hexdigest()
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}

    def unpacked(machine: Any) -> dict[str, bytes] | None:
        backend = registry.read(home.Home(str(machine.home)), digest)
        if backend is None:
            return None
        (site,) = Path(backend.entry.interpreter).parents[1].glob("lib/python*/site-packages")
        # Without bytecode: Python writes it during the self-test.
        return {str(path.relative_to(site)): path.read_bytes() for path in sorted(site.rglob("*.py"))}

    def always(machine: Any) -> None:
        content = unpacked(machine)
        if content is None:
            assert not broken, "the runtime that was there is gone, and no other is in its place"
        elif content != expected:
            assert broken, "a runtime with files missing or damaged"
            assert content == {**expected, BROKEN: b"raise ImportError"}, (
                "neither the old one nor the new one"
            )

    def check(machine: Any) -> None:
        assert unpacked(machine) == expected, "the response says that the runtime is there"
        journal_has(machine, "runtime")

    request = {
        "digest": digest,
        "wheels": [{"name": "numpy-1-py3-none-any.whl", "sha256": sha}],
        "modules": ["tflite_runtime"],
    }
    return Scenario(
        name="rebuild" if broken else "build",
        before=before,
        steps=[verb("runtime", check, **request)],
        serves=(release,),
        ends=(release, state_record.COMMITTED),
        settled=check,
        always=always,
    )


def service(release: str, before: dict[str, Any], *, enable: bool) -> Scenario:
    """What starts the agent with the device is installed, or removed again."""

    def installed(machine: Any) -> None:
        installation = record.read(home.Home(str(machine.home)))
        assert installation is not None, "the response says installed"
        assert installation.is_intact(), "the response says installed"

    def gone(machine: Any) -> None:
        assert list((machine.home / "service").iterdir()) == [], "the response says removed"

    def always(machine: Any) -> None:
        installation = record.read(home.Home(str(machine.home)))
        known = set() if installation is None else {*installation.files, *installation.stale}
        there = {str(path) for path in (machine.home / "service").glob("start.*")}
        assert there <= known, "the record does not list a start file"

    def check(machine: Any) -> None:
        (installed if enable else gone)(machine)
        journal_has(machine, "service")

    def act(machine: Any) -> dict[str, Any]:
        answer: dict[str, Any] = machine.call("service", action="enable", kind="plain")
        if answer["event"] == "error" and answer["error"]["code"] == "EQ557":
            # Installed; this machine has no cron that would run it.
            problem = answer["error"]["problem"]
            return {"event": "result", "result": {"journal_problem": problem} if "journal" in problem else {}}
        return answer

    step = Step(act=act, check=check) if enable else verb("service", check, action="disable")
    return Scenario(
        name="service" if enable else "no service",
        before=before,
        steps=[step],
        serves=(release,),
        ends=(release, state_record.COMMITTED),
        settled=installed if enable else gone,
        always=always,
    )


def update(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    steps = [upload(*new.files.values()), verb("activate", committed(new.release), **new.request())]
    return Scenario(
        name="update",
        before=before,
        steps=steps,
        serves=(old.release, new.release),
        ends=(new.release, state_record.COMMITTED),
    )


def soak(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    steps = [
        verb("activate", serves(new.release), **new.request(soak_s=60)),
        wait(61),
        verb("soak", committed(new.release), model="tiny"),
    ]
    return Scenario(
        name="soak",
        before=before,
        steps=steps,
        serves=(old.release, new.release),
        ends=(new.release, state_record.COMMITTED),
    )


def failed_soak(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    def check(machine: Any) -> None:
        assert current(machine) == old.release, "the response says rolled back"
        assert state_of(machine)["state"] == state_record.ROLLED_BACK, "the response says rolled back"
        _journal_says(machine, new.release, state_record.ROLLED_BACK)

    steps = [fail(new.release, calls=10, errors=9), verb("soak", check, model="tiny")]
    return Scenario(
        name="failed soak",
        before=before,
        steps=steps,
        serves=(old.release, new.release),
        ends=(old.release, state_record.ROLLED_BACK),
    )


def rollback(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    step = verb("rollback", committed(old.release), **{"model": "tiny", "from": new.release})
    return Scenario(
        name="rollback",
        before=before,
        steps=[step],
        serves=(old.release, new.release),
        ends=(old.release, state_record.COMMITTED),
    )


def recover(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    def check(machine: Any) -> None:
        assert current(machine) == old.release, "the response says rolled back"
        assert state_of(machine)["state"] == state_record.ROLLED_BACK, "the response says rolled back"

    return Scenario(
        name="recover",
        before=before,
        steps=[verb("recover", check)],
        serves=(old.release, new.release),
        ends=(old.release, state_record.ROLLED_BACK),
    )


def prune(
    old: Any, new: Any, before: dict[str, Any], gone: list[str], stays: list[str], history: list[str]
) -> Scenario:
    def removed(machine: Any) -> None:
        back = [path for path in gone if (machine.home / path).exists()]
        assert back == [], "the response says removed"
        assert state_of(machine)["history"] == history, "no history leads to what is gone"

    def check(machine: Any) -> None:
        removed(machine)
        # Only after a response: an interrupted call may have done its work without writing the journal.
        journal_has(machine, "prune")

    def settled(machine: Any) -> None:
        removed(machine)
        assert [path for path in stays if not (machine.home / path).exists()] == []

    return Scenario(
        name="prune",
        before=before,
        steps=[verb("prune", check)],
        serves=(new.release,),
        ends=(new.release, state_record.COMMITTED),
        settled=settled,
    )


def pin(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    def pinned(machine: Any) -> None:
        assert pins.read(home.Home(str(machine.home)), "tiny") == [old.release], "the response says pinned"

    def check(machine: Any) -> None:
        pinned(machine)
        journal_has(machine, "pin")

    return Scenario(
        name="pin",
        before=before,
        steps=[verb("pin", check, model="tiny", release=old.release)],
        serves=(new.release,),
        ends=(new.release, state_record.COMMITTED),
        settled=pinned,
    )


def whole(machine: Any, allowed: tuple[str | None, ...]) -> None:
    """What must hold at every moment: one of the allowed serves, and all that is there is complete."""
    assert current(machine) in allowed, f"{current(machine)} serves"
    state = state_of(machine)
    if state["state"] == state_record.COMMITTED:
        assert current(machine) == state["target"], "committed is another one than serves"
    if not machine.home.exists():
        return
    for folder in sorted(Path(machine.home, "releases").glob("*")):
        manifest = files.read_json(str(folder / "manifest.json"))
        assert wire.digest(manifest) == folder.name, "a damaged manifest"
        for name, entry in manifest["files"].items():
            data = (folder / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{folder.name[:8]}/{name}"
    _split_is_whole(machine)


def _split_is_whole(machine: Any) -> None:
    """Check that a split in force names only releases that were checked on this device."""
    place = home.Home(str(machine.home))
    if not (machine.home / "models" / "tiny").is_dir():
        return
    split = candidates.split_in_force(place, "tiny")
    proved = {current(machine), *candidates.read(place, "tiny")}
    for arm in split.arms if split else ():
        assert arm.release in proved, "the split names what is not staged"
        assert (machine.home / "releases" / arm.release).is_dir(), "the split names what is not there"


def clean(machine: Any) -> None:
    """Nothing half-made is left."""
    left = list((machine.home / "tmp").iterdir())
    left += [path for path in machine.home.iterdir() if path.name.startswith(".")]
    left += list((machine.home / "models").glob("*/.*"))
    assert left == [], "half-made things"
