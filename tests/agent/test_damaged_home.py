"""Every file of a home, damaged in every way, under every verb: it works, heals, or names the repair."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import __main__ as agent
from edgeq_agent import wire
from edgeq_agent.activation import candidates, counters
from edgeq_agent.activation.candidates import CandidateRelease
from edgeq_agent.autostart import record, service_log
from edgeq_agent.autostart.record import Artifacts, Spec, Supervision
from edgeq_agent.calls.stdin import Stdin
from edgeq_agent.releases import pins
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Arm, Split
from edgeq_agent.storage import damage, disk, log_file
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import ddsketch, outbox
from edgeq_agent.telemetry.window import OutputCounts, Window

pytestmark = pytest.mark.convert
MODEL = "models/tiny/"
# Of each: whether the device replaces it and reports that.
FILES = {
    "device.json": True,
    "trust.json": False,
    "journal": False,
    "outbox.db": True,
    "lock": False,
    "partial.lock": False,
    MODEL + "state.json": True,
    MODEL + "counters.json": False,
    MODEL + "counters.json.lock": False,
    MODEL + "pins.json": True,
    MODEL + "staged.json": True,
    MODEL + "split.json": False,
    MODEL + "current": False,
    "service/service.json": True,
    "service/started.json": True,
    "service/serve.json": True,
    "service/serve.log": False,
    "crash.log": False,
    "runtime/{runtime}/runtime.json": False,
    "releases/{release}/manifest.json": False,
}
LIGHT = ("probe", "missing", "soak", "recover", "pin", "unpin", "unstage", "split", "prune", "status",
         "telemetry", "trust", "service", "logs")  # fmt: skip
HEAVY = ("infer", "bench", "activate", "rollback", "stage", "put", "runtime")


def newer(path: Path) -> None:
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            body = json.loads(path.read_text())
            path.write_text(json.dumps({**body, "schema": body["schema"].split("/")[0] + "/99", "new": {}}))
    elif path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript("ALTER TABLE windows RENAME COLUMN body TO content; PRAGMA user_version=9")


def values_of_another_type(path: Path) -> None:
    """Turn every value of a JSON object into one of another type."""
    if path.suffix != ".json":
        path.write_bytes(b"7")
        return
    body = json.loads(path.read_text())
    other = {str: 7, int: "x", list: {"a": 1}, dict: [None], type(None): {}, bool: "no", float: []}
    path.write_text(json.dumps({k: v if k == "schema" else other[type(v)] for k, v in body.items()}))


def past_the_first_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage_it(path: Path) -> None:
        path.unlink()
        make(path)

    return damage_it


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("something")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a number": lambda path: path.write_bytes(b"7"),
    "an empty object": lambda path: path.write_bytes(b"{}"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "not finite": lambda path: path.write_bytes(b'{"schema": NaN, "state": 1e999, "device_id": "\\ud800"}'),
    "other types": values_of_another_type,
    "newer": newer,
    "pages": past_the_first_page,
    "a folder": in_its_place(a_folder),
    "a named pipe": in_its_place(os.mkfifo),
    "a link to itself": in_its_place(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path: path.chmod(0),
}


@pytest.fixture(scope="module")
def full_home(
    prepared_both: Path, float_bundle: Any, int8_bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a home that has every file: the float release serves, the int8 one is staged and pinned."""
    root = tmp_path_factory.mktemp("full") / "home"
    shutil.copytree(prepared_both, root, symlinks=True)
    home = Home(str(root))
    ask(root, "status")
    runtime = os.listdir(home.runtimes)[0]
    pins.pin(home, "tiny", int8_bundle.release)
    candidates.write(home, "tiny", {int8_bundle.release: CandidateRelease(runtime, 1, {}, 1)})
    arms = (Arm("a", float_bundle.release, 0.5), Arm("b", int8_bundle.release, 0.5))
    ab_split.write(home, "tiny", Split(arms, "salt", float_bundle.release, "e"))
    counters.add(home, "tiny", float_bundle.release, calls=3, errors=1)
    record.write(home, Spec("cron", ("tiny",)), Artifacts(crontab="@reboot x"), [])
    record.write_start(home, "", {})
    record.write_supervision(home, Supervision("", 1, ""))
    for log in (service_log.path(home), home.crash_log):
        assert log_file.append(log, "Traceback") == ""
    with outbox.opened(home) as box:
        box.append("tiny", float_bundle.release, window())
    with contextlib.closing(sqlite3.connect(home.outbox)) as database, database:
        for seq in range(2, 201):
            database.execute(
                "INSERT INTO windows (boot, seq, model, release, merged, body) "
                "SELECT boot, ?, model, release, 1, replace(body, '\"seq\":1', '\"seq\":' || ?) "
                "FROM windows WHERE seq = 1",
                (seq, seq),
            )
        database.execute("UPDATE boots SET last_seq = 200")
    return root


def window() -> Window:
    sketch = ddsketch.SketchBuilder()
    sketch.add(1000)
    return Window(1, 2, 1, {}, sketch.build(), (), OutputCounts((1, 0, 0), (0, 1)))


@pytest.fixture(scope="module")
def requests(kit: Any, int8_bundle: Any, float_bundle: Any, tiny_data: Any) -> dict[str, tuple[Any, bytes]]:
    """Return for each verb a request that succeeds on a sound home, and its payload."""
    samples, blob = kit.npz(input_0=tiny_data[:2]), b"a blob"
    sha = hashlib.sha256(blob).hexdigest()
    model = {"model": "tiny"}
    return {
        "probe": ({}, b""),
        "missing": ({"blobs": {sha: 6}}, b""),
        "soak": (model, b""),
        "recover": ({}, b""),
        "pin": (model, b""),
        "unpin": (model, b""),
        "unstage": ({**model, "release": "0" * 64}, b""),
        "split": (model, b""),
        "prune": ({"dry_run": True}, b""),
        "status": ({}, b""),
        "logs": ({}, b""),
        "telemetry": ({}, b""),
        "trust": ({}, b""),
        "service": ({"action": "status"}, b""),
        "put": ({"sha256": sha, "size_bytes": 6, "payload_bytes": 6}, blob),
        "infer": ({**model, "payload_bytes": len(samples)}, samples),
        "bench": ({**model, "runs": 3, "min_seconds": 0.01}, b""),
        "activate": (float_bundle.request(), b""),
        "rollback": (model, b""),
        "stage": (int8_bundle.request(), b""),
        "runtime": ({"digest": kit.RUNTIME, "wheels": [], "modules": ["ai_edge_litert"]}, b""),
    }


class Unsynced(disk.Disk):
    """A disk that saves the time of syncing: no power is cut here."""

    def perform(self, operation: str, arguments: tuple[Any, ...], action: Callable[[], Any]) -> Any:
        return None if operation.startswith("sync") else action()


def ask(home: Path, verb: str, request: Any = None, payload: bytes = b"") -> list[dict[str, Any]]:
    """Run a verb in this process and return its messages."""
    damage.take_reports()
    sink, inlet = io.BytesIO(), os.pipe()
    os.write(inlet[1], json.dumps(request or {}).encode() + b"\n" + payload)
    os.close(inlet[1])
    try:
        with disk.use(Unsynced()):
            agent.run([verb, "--home", str(home)], Stdin(inlet[0]), sink)
    finally:
        os.close(inlet[0])
    return [wire.parse(line) for line in sink.getvalue().splitlines()]


def as_an_ordinary_user(action: Callable[[], Any]) -> Any:
    """Run an action in a child that obeys the permissions of files even as root; return its JSON value."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _drop_privileges()
            with os.fdopen(write, "w") as stream:
                json.dump(action(), stream)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    return json.loads(text)


def _drop_privileges() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None)
    override, search = 1, 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (override, search):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, for the processes that it starts
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for index in range(3):
        sets[index] &= ~(1 << override | 1 << search)
    assert libc.capset(header, sets) == 0


def damaged(full: Path, folder: Path, name: str, damage_name: str) -> Path:
    """Return a copy of the home with one file damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(full, folder, symlinks=True)
    path = folder / name.format(
        runtime=os.listdir(folder / "runtime")[0], release=os.readlink(folder / MODEL / "current")[-64:]
    )
    if not path.is_symlink() and not path.exists():
        path.touch()
    DAMAGES[damage_name](path)
    return folder


def is_helpful(error: dict[str, Any], home: Path) -> bool:
    """Return whether an error says what to do, and is none of a bug."""
    return error["code"] not in ("EQ590", "EQ500") and bool(error["hint"])


def applies(name: str, how: str) -> bool:
    if how == "pages":
        return name == "outbox.db"
    if name.endswith("current"):
        return how in ("a folder", "a named pipe", "a link to itself")
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", [MODEL + "state.json", *(name for name in FILES if "state" not in name)])
def test_every_damage_of_a_file_under_every_light_verb(
    name: str, full_home: Path, requests: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for how in DAMAGES:
        if not applies(name, how):
            continue
        for verb in LIGHT:
            home = damaged(full_home, tmp_path / "home", name, how)
            run = partial(ask, home, verb, *requests[verb])
            messages = as_an_ordinary_user(run) if how == "unreadable" else run()
            _check(messages, home, name, how, verb)
            again = ask(home, "status")[-1]
            assert again["event"] == "result", (name, how, verb, again)
            if not (name.endswith("current") and how == "a link to itself"):
                assert (
                    again["result"]["models"]["tiny"]["current"]
                    == os.readlink(full_home / MODEL / "current")[-64:]
                ), (name, how, verb)
    assert "Traceback" not in capfd.readouterr().err


def _check(messages: list[dict[str, Any]], home: Path, name: str, how: str, verb: str) -> None:
    last = messages[-1]
    where = (name, how, verb, last)
    if last["event"] == "error":
        assert is_helpful(last["error"], home), where
        if name == "trust.json":
            assert last["error"]["code"] == "EQ537", where
            assert f"mv {home / 'trust.json'}" in last["error"]["hint"], where
    else:
        assert last["event"] == "result", where
    if FILES[name] and name != "outbox.db" and (name, how) != ("device.json", "newer"):
        reported = [message["file"] for message in messages if message.get("step") == "damaged"]
        assert name in reported, where


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "other types", "a folder", "pages"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_under_the_verbs_that_run_the_model(
    name: str, how: str, full_home: Path, requests: Any, tmp_path: Path
) -> None:
    if not applies(name, how):
        return
    for verb in HEAVY:
        home = damaged(full_home, tmp_path / "home", name, how)
        _check(ask(home, verb, *requests[verb]), home, name, how, verb)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("how", ["pages", "cut", "garbage", "a folder", "newer", "a named pipe", "emptied"])
def test_a_damaged_outbox_costs_no_prediction_and_is_reported(
    how: str, full_home: Path, requests: Any, tmp_path: Path
) -> None:
    home = damaged(full_home, tmp_path / "home", "outbox.db", how)
    messages = ask(home, "infer", *requests["infer"])
    result = messages[-1]["result"]
    assert (result["samples"], result["windows"]) == (2, 1)
    assert "telemetry_problem" not in result
    assert {report["file"] for report in result["damaged"]} == {"outbox.db"}
    assert list(home.glob("outbox.db.damaged-*")) or how == "emptied"
    sent = ask(home, "telemetry")
    assert sent[-1]["result"]["sent"] > 0
    if how in ("pages", "cut"):
        text = result["damaged"][0]["lost"]
        assert "windows could be read" in text


def test_windows_before_and_after_the_damage_are_rescued(full_home: Path, tmp_path: Path) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    path = home / "outbox.db"
    data = bytearray(path.read_bytes())
    pages = [at for at in range(4096, len(data), 4096) if data.count(b'"schema"', at, at + 4096) > 2]
    middle = pages[len(pages) // 2]
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    with outbox.opened(Home(str(home))) as box:
        boot, windows = box.take(1000)
        assert box.append("tiny", "r", window()) == 1, "numbers restart, in a boot of another nonce"
        assert boot != box.boot
    seqs = [each["seq"] for each in windows]
    assert 100 < len(seqs) < 200
    assert min(seqs) == 1
    assert max(seqs) == 200
    assert seqs == sorted(set(seqs))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE windows",
        "DROP TABLE boots",
        "DROP TABLE meta",
        "DELETE FROM meta",
        "UPDATE meta SET value = x'00ff'",
        "UPDATE boots SET last_seq = 'many'",
        "UPDATE boots SET last_seq = 0",
        "UPDATE windows SET body = substr(body, 1, 100)",
        "UPDATE windows SET body = x'ff00' WHERE seq % 2",
        "UPDATE windows SET body = '{}'",
        "UPDATE windows SET body = '[1e999]'",
        "UPDATE windows SET boot = x'00'",
        "UPDATE windows SET seq = 'x' || seq",
        "UPDATE windows SET merged = 'x'",
        "UPDATE windows SET model = 7",
        "CREATE TRIGGER t BEFORE INSERT ON windows BEGIN SELECT * FROM missing; END",
    ],
)
def test_content_that_is_not_an_outbox_is_replaced(full_home: Path, tmp_path: Path, statement: str) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    with contextlib.closing(sqlite3.connect(home / "outbox.db", isolation_level=None)) as database:
        database.execute(statement)
    with outbox.opened(Home(str(home))) as box:
        assert box.append("tiny", "r", window()) >= 1
        assert box.summary().pending >= 1
        for _ in range(10):
            boot, windows = box.take(1000)
            if not windows:
                break
            assert all((each["boot"], type(each["seq"])) == (boot, int) for each in windows)
            box.acknowledge(boot, max(each["seq"] for each in windows))
        assert box.pending() == 0, "everything that is sent can be acknowledged"


@pytest.mark.parametrize("how", [how for how in DAMAGES if how not in ("unreadable", "pages")])
def test_a_device_keeps_its_id_and_its_history(full_home: Path, tmp_path: Path, how: str) -> None:
    before = ask(full_home, "status")[-1]["result"]
    home = damaged(full_home, tmp_path / "home", "device.json", how)
    damage_state = damaged(full_home, tmp_path / "other", MODEL + "state.json", how)
    assert ask(home, "status")[-1]["result"]["device_id"] == before["device_id"]
    after = ask(damage_state, "status")[-1]["result"]["models"]["tiny"]
    for figure in ("current", "previous", "state", "runtime", "staged", "pins"):
        assert after[figure] == before["models"]["tiny"][figure], figure


def test_damaged_pins_keep_every_release(full_home: Path, tmp_path: Path, int8_bundle: Any) -> None:
    home = damaged(full_home, tmp_path / "home", MODEL + "pins.json", "cut")
    (home / MODEL / "staged.json").unlink()
    (home / MODEL / "split.json").unlink()
    result = ask(home, "prune")[-1]["result"]
    assert result["removed"]["releases"] == []
    assert "tiny: pinned" in result["kept"]["releases"][int8_bundle.release]


def test_of_many_damages_of_a_file_the_newest_copies_stay(full_home: Path, tmp_path: Path) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    for number in range(6):
        (home / "device.json").write_text(str(number))
        ask(home, "status")
    assert len(list(home.glob("device.json.damaged-*"))) == 3


def test_one_models_unreadable_folder_hides_no_other_model(full_home: Path, tmp_path: Path) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    shutil.copytree(home / "models" / "tiny", home / "models" / "other", symlinks=True)
    (home / "models" / "stray.txt").write_text("no model")
    (home / "models" / "other").chmod(0)
    try:
        messages = as_an_ordinary_user(lambda: ask(home, "status"))
    finally:
        (home / "models" / "other").chmod(0o700)
    result = messages[-1]["result"]
    assert set(result["models"]) == {"tiny", "other"}
    assert result["models"]["tiny"]["state"] == "committed"
    assert "sudo chown" in result["models"]["other"]["reason"]


@pytest.mark.parametrize("folder", ["tmp", "partial", "models", "service", "runtime", "releases", "blobs"])
def test_a_file_in_the_place_of_a_folder_is_renamed(full_home: Path, tmp_path: Path, folder: str) -> None:
    home = damaged(full_home, tmp_path / "home", "journal", "emptied")
    shutil.rmtree(home / folder)
    (home / folder).write_text("a file")
    assert ask(home, "status")[-1]["event"] == "result"
    assert ask(home, "probe")[-1]["event"] == "result"


def test_a_home_that_is_a_file_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    error = ask(tmp_path / "home", "status")[-1]["error"]
    assert error["code"] == "EQ523"
    assert error["hint"].startswith(f"run `mv {tmp_path / 'home'} ")


def replaced_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"\x00" * 10)


def removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


PLACES: dict[str, dict[str, Callable[[Path], object]]] = {
    "file": {
        how: DAMAGES[how] for how in ("emptied", "garbage", "a folder", "a link to itself", "unreadable")
    },
    "folder": {"a file": replaced_by_a_file, "unreadable": lambda path: path.chmod(0)},
    "link": {
        "a folder": DAMAGES["a folder"],
        "to nowhere": in_its_place(lambda path: path.symlink_to("nowhere")),
    },
}


def kind_of(path: Path) -> str:
    if path.is_symlink():
        return "link"
    return "folder" if path.is_dir() else "file"


def places(home: Path) -> list[Path]:
    """Return every path of a home below itself, but those inside an installed runtime."""
    paths = sorted(path.relative_to(home) for path in home.rglob("*"))
    return [p for p in paths if p.parts[0] != "runtime" or len(p.parts) <= 2 or p.name == "runtime.json"]


def damaged_places(full: Path, home: Path) -> Iterator[tuple[str, str]]:
    """Damage one path after the other of a copy of a home, in each way; yield the path and the way."""
    for relative in places(full):
        kind = kind_of(full / relative)
        for how, damage_it in {**PLACES[kind], "removed": removed}.items():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(full, home, symlinks=True)
            damage_it(home / relative)
            yield str(relative), how
            if how == "unreadable" and (home / relative).is_dir():
                (home / relative).chmod(0o700)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["status", "missing", "put", "infer", "bench", "activate", "prune", "telemetry"]
)
def test_every_path_of_a_home_damaged(
    verb: str, full_home: Path, requests: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for where in damaged_places(full_home, tmp_path / "home"):
        run = partial(ask, tmp_path / "home", verb, *requests[verb])
        last = (as_an_ordinary_user(run) if where[1] == "unreadable" else run())[-1]
        if last["event"] == "error" and not is_helpful(last["error"], tmp_path / "home"):
            wrong.append((*where, last))
    assert not wrong
    assert "Traceback" not in capfd.readouterr().err


def is_renewed(messages: list[dict[str, Any]], release: str) -> bool:
    """Return whether a deploy activates the release again, by the device's status."""
    status = messages[-1]["result"]["models"]["tiny"]
    return release not in status["releases"] or release in status.get("damaged", ())


@pytest.mark.slow
def test_a_damaged_release_that_serves_is_repaired_by_what_a_deploy_does(
    full_home: Path, requests: Any, tmp_path: Path, float_bundle: Any
) -> None:
    home = tmp_path / "home"
    release = os.readlink(full_home / MODEL / "current")[-64:]
    document = json.loads((full_home / "releases" / release / "manifest.json").read_text())
    kept = {
        file["sha256"]: (full_home / "blobs" / "sha256" / file["sha256"]).read_bytes()
        for file in document["files"].values()
    }
    inside = {f"blobs/sha256/{sha256}" for sha256 in kept}
    for place, how in damaged_places(full_home, home):
        if not (place in inside or place.startswith(f"releases/{release}")) or how == "unreadable":
            continue
        sizes = {sha256: len(data) for sha256, data in kept.items()}
        missing = ask(home, "missing", {"blobs": sizes})[-1]["result"]["missing"]
        assert missing or is_renewed(ask(home, "status"), release), (place, how)
        for sha256 in missing:
            size = len(kept[sha256])
            request = {"sha256": sha256, "size_bytes": size, "payload_bytes": size}
            assert ask(home, "put", request, kept[sha256])[-1]["event"] == "result", (place, how)
        if is_renewed(ask(home, "status"), release):
            assert ask(home, "activate", *requests["activate"])[-1]["event"] == "result", (place, how)
        assert ask(home, "infer", *requests["infer"])[-1]["event"] == "result", (place, how)
