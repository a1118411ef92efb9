"""Experiment records: a damaged record, or one of a newer edgeq, is one line of error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeq.cli import main
from edgeq.errors import ExperimentError
from edgeq.experiment import SplitBy, record
from edgeq.experiment.config import ExperimentConfig
from edgeq.store import Store
from edgeq.store.engine import open_engine

TERMS = ExperimentConfig(
    experiment="m-1",
    model="m",
    release_a="a" * 64,
    release_b="b" * 64,
    by=SplitBy.CALLS,
    share=0.1,
    salt="s",
    arms={"pi": "ab"},
).to_dict()


def write(workspace: Path, *events: tuple[str, Any]) -> None:
    with Store.open(workspace) as store:
        for event, body in events:
            store.record_experiment("m-1", event, "ann", body)


def test_an_experiment_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, ("started", {"terms": TERMS}), ("stopped", {}), ("closed", {"devices": ["pi"]}))
    with Store.open(tmp_path) as store:
        (experiment,) = record.read_all(store)
    assert (experiment.config.to_dict(), experiment.finished) == (TERMS, True)


@pytest.mark.parametrize(
    "events",
    [
        [("started", {})],
        [("started", {"terms": {}})],
        [("started", [1])],
        [("started", {"terms": {**TERMS, "by": "moon"}})],
        [("started", {"terms": {**TERMS, "more": 1}})],
        [("started", {"terms": {**TERMS, "share": "x"}})],
        [("started", {"terms": {**TERMS, "share": math.nan}})],  # stored as null
        [("started", {"terms": {**TERMS, "arms": 5}})],
        [("started", {"terms": {**TERMS, "arms": {"pi": "c"}}})],
        [("started", {"terms": {**TERMS, "model": None}})],
        [("stopped", {"terms": TERMS})],
        [("started", {"terms": TERMS}), ("paused", {})],
        [("started", {"terms": TERMS}), ("closed", {})],
        [("started", {"terms": TERMS}), ("stopped", "x")],
        [("started", {"terms": TERMS}), ("stopped", {"because": 5})],
    ],
)
def test_a_damaged_record_is_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], events: list[tuple[str, Any]]
) -> None:
    write(tmp_path, *events)
    for argv in (["list"], ["status"], ["stop"]):
        assert main(["--workspace", str(tmp_path), "ab", *argv]) == 1
        line, hint = capsys.readouterr().err.splitlines()
        assert line.startswith("error[EQ838]: m-1: its record in the store cannot be read")
        assert hint.startswith("hint: ")


@pytest.mark.parametrize("at", [".edgeq/experiments/lock", ".edgeq/experiments"])
def test_a_folder_that_cannot_be_written_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    write(tmp_path, ("started", {"terms": TERMS}))
    taken = tmp_path / at
    # A file in place of the folder: not even root can write there.
    if at.endswith("lock"):
        taken.mkdir(parents=True)
    else:
        taken.write_text("")
    assert main(["--workspace", str(tmp_path), "ab", "stop"]) == 1
    line, _ = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error[EQ830]: {taken}")
    with Store.open(tmp_path) as store:
        assert [event.event for event in store.experiments()] == ["started"]


def test_a_bundle_that_cannot_be_stored_is_reported(tmp_path: Path) -> None:
    record.keep_bundle(tmp_path, "m-1", b"one")
    assert record.bundle_path(tmp_path, "m-1").read_bytes() == b"one"
    (tmp_path / record.FOLDER / "m-2").write_text("")
    with pytest.raises(ExperimentError, match=r"m-2.*cannot be written"):
        record.keep_bundle(tmp_path, "m-2", b"two")


def test_a_record_that_is_not_json_is_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ("started", {"terms": TERMS}))
    engine = open_engine(tmp_path / ".edgeq" / "store.db")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE experiments SET body = '{'"))
    engine.dispose()
    assert main(["--workspace", str(tmp_path), "ab", "list"]) == 1
    assert capsys.readouterr().err.startswith("error[EQ610]: ")
