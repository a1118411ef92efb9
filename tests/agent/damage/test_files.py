"""Every file of a home, damaged in every way, under every verb: it works, heals, or names the repair."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.agent.damage.homes import DAMAGES, MODEL, as_an_ordinary_user, ask, damaged, is_helpful

pytestmark = pytest.mark.convert
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


# What decides what a device does. Of the other files, each damage meets a third of the verbs, and each verb a
# third of the damages.
WHOLE = ("trust.json", MODEL + "current", *(name for name, replaced in FILES.items() if replaced))
PLACES = ("a folder", "a named pipe", "a link to itself", "unreadable")


def applies(name: str, how: str) -> bool:
    if how == "pages":
        return name == "outbox.db"
    if name.endswith("lock"):  # no verb reads it
        return how in ("garbage", *PLACES)
    if name.endswith("current"):
        return how in ("a folder", "a named pipe", "a link to itself")
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", [MODEL + "state.json", *(name for name in FILES if "state" not in name)])
def test_every_damage_of_a_file_under_every_light_verb(
    name: str, full_home: Path, requests: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, how in enumerate(DAMAGES):
        if not applies(name, how):
            continue
        for verb in LIGHT if name in WHOLE else LIGHT[number % 3 :: 3]:
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
