"""Facts about the interpreter: the packages that a runtime can use are found without an import."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("numpy-1.24.2.egg-info", "1.24.2"),  # Debian's
        ("numpy-1.21.6-py3.7.egg-info", "1.21.6"),
        ("numpy-2.2.4.dist-info", "2.2.4"),
        ("numpy_financial-1.0.0.dist-info", None),
    ],
)
def test_the_version_of_numpy_is_read_without_importing_it(
    device: Any, tmp_path: Path, folder: str, version: str | None
) -> None:
    (tmp_path / "site" / "numpy").mkdir(parents=True)
    (tmp_path / "site" / "numpy" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "site" / folder).mkdir()
    path = f"{tmp_path / 'site'}:{device.environment['PYTHONPATH']}"
    theirs = dataclasses.replace(device, environment={**device.environment, "PYTHONPATH": path})
    assert theirs.call("probe").result["packages"] == ({"numpy": version} if version else {})
