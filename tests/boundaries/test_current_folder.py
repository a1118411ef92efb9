"""Each test begins in an empty current folder, whatever the test before it left or changed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("turn", [1, 2])
def test_what_a_test_leaves_in_its_current_folder_does_not_reach_the_next(
    turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(Path.cwd().iterdir()) == [], f"turn {turn}"
    Path("left-behind").touch()
    monkeypatch.chdir(tmp_path)
