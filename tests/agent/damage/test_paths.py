"""Every path of a home in the place of another kind, and the repair of a release by a deploy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.agent.damage.homes import (
    DAMAGES,
    MODEL,
    as_an_ordinary_user,
    ask,
    in_its_place,
    is_helpful,
)

pytestmark = pytest.mark.convert


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
@pytest.mark.parametrize("verb", ["status", "missing", "put", "infer", "activate", "prune", "telemetry"])
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
