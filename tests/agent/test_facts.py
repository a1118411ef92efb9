"""What the device says about its own Python, and what a runtime takes from there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.platforms import device as board


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("numpy-1.24.2.egg-info", "1.24.2"),  # Debian's
        ("numpy-1.21.6-py3.7.egg-info", "1.21.6"),
        ("numpy-2.2.4.dist-info", "2.2.4"),
        ("numpy_financial-1.0.0.dist-info", None),
    ],
)
def test_the_devices_own_numpy_is_read_and_not_imported(
    device: Any, tmp_path: Path, folder: str, version: str | None
) -> None:
    (tmp_path / "site" / "numpy").mkdir(parents=True)
    (tmp_path / "site" / "numpy" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "site" / folder).mkdir()
    path = f"{tmp_path / 'site'}:{device.environment['PYTHONPATH']}"
    theirs = dataclasses.replace(device, environment={**device.environment, "PYTHONPATH": path})
    assert theirs.call("probe").result["packages"] == ({"numpy": version} if version else {})


@pytest.mark.parametrize("program", ["app_process", "app_process64", "app_process32"])
def test_android_is_known_where_an_app_may_not_see_its_properties(tmp_path: Path, program: str) -> None:
    assert board.kind(str(tmp_path)) == "linux"
    (tmp_path / "system" / "bin").mkdir(parents=True)
    (tmp_path / "system" / "bin" / program).touch()
    assert board.kind(str(tmp_path)) == "android"
