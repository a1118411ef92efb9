"""The journal: on disk before it is acted on, a torn end is cut off, an edited line is seen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.errors import RolloutDamaged, RolloutError
from edgeq.fleet.rollout.journal import SCHEMA, Journal, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    book, entries = Journal.open(path)
    assert entries == []
    book.append([{"event": "created", "name": "ä"}])
    book.append([{"event": "looked", "device": "a"}, {"event": "looked", "device": "b"}])
    return path


def test_lines_are_chained_and_come_back(path: Path) -> None:
    entries = read(path)
    assert [entry["event"] for entry in entries] == ["created", "looked", "looked"]
    assert entries[0]["schema"] == SCHEMA
    assert [entry["prev"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:-1]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_torn_end_is_cut_off_and_the_journal_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(read(path)) == 2
        assert path.read_bytes() == whole[:cut]  # reading alone changes nothing
        book, entries = Journal.open(path)
        assert len(entries) == 2
        book.append([{"event": "looked", "device": "c"}])
        assert [entry.get("device") for entry in read(path)] == [None, "a", "c"]


def test_zeros_that_a_power_cut_left_at_the_end_are_cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    assert len(Journal.open(path)[1]) == 3
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[2]],  # one taken out
        lambda lines: [lines[1], lines[2]],  # the first taken out
        lambda lines: [lines[0], lines[2], lines[1]],  # two exchanged
        lambda lines: [lines[0], lines[1].replace(b'"a"', b'"x"'), lines[2]],
        lambda lines: [lines[0], b"{}", lines[2]],
        lambda lines: [lines[0], b"\xff", lines[2]],
        lambda lines: [lines[0].replace(b"journal/1", b"journal/9"), *lines[1:]],
        lambda lines: [*lines[:2], lines[2].replace(b'"b"', b'"x"')],
    ],
)
def test_a_changed_line_is_seen(path: Path, damage: Callable[[list[bytes]], list[bytes]]) -> None:
    before = b"\n".join(damage(path.read_bytes().splitlines())) + b"\n"
    path.write_bytes(before)
    with pytest.raises(RolloutDamaged) as caught:
        Journal.open(path)
    assert caught.value.reported_code == "EQ822"
    assert ": line " in caught.value.message
    assert path.read_bytes() == before


def test_a_line_of_another_version_is_refused_even_with_a_good_hash(path: Path) -> None:
    from edgeq.fleet.rollout.journal import line_hash

    body = {"schema": "edgeq.rollout-journal/2", "event": "created", "n": 0, "prev": "", "time_ns": 1}
    path.write_text(json.dumps({**body, "hash": line_hash(body)}) + "\n")
    with pytest.raises(RolloutDamaged, match=r"expected edgeq\.rollout-journal/1"):
        read(path)


def test_file_and_folder_are_synced_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    book, _ = Journal.open(tmp_path / "journal.jsonl")
    book.append([{"event": "created"}])
    assert synced == ["journal.jsonl", tmp_path.name]
    book.append([{"event": "looked"}])
    assert synced[2:] == ["journal.jsonl"]


def test_a_disk_that_refuses_is_one_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")
    book = Journal(tmp_path / "journal.jsonl", [])
    with pytest.raises(RolloutError) as caught:
        book.append([{"event": "created"}])
    assert caught.value.reported_code == "EQ826"
    assert "No space left" in caught.value.message
