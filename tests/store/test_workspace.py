"""Recording of the Python API: the caller's store, `EDGEQ_WORKSPACE`'s, the current folder's, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.store import UNRECORDED, Store, default_workspace, recording_store


def test_a_given_store_is_used_and_left_open(tmp_path: Path) -> None:
    with Store.open(tmp_path) as mine:
        with recording_store(mine) as store:
            assert store is mine
        assert mine.record_run("check", "x", {}) == 1


def test_without_one_the_current_folder_records(workspace: Path) -> None:
    with recording_store(None) as store:
        store.record_run("check", "x", {})
    with Store.open(workspace) as store:
        assert [run.subject for run in store.runs()] == ["x"]


def test_the_environment_names_the_workspace(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEQ_WORKSPACE", str(tmp_path / "other"))
    assert default_workspace() == tmp_path / "other"
    with recording_store(None) as store:
        store.record_run("check", "x", {})
    assert (tmp_path / "other" / ".edgeq" / "store.db").exists()
    assert not (workspace / ".edgeq").exists()


def test_unrecorded_opens_no_store(workspace: Path) -> None:
    with recording_store(UNRECORDED, workspace) as records:
        records.record_run("check", "x", {})
        records.put_release("0" * 64, {}, None)
    assert not (workspace / ".edgeq").exists()
