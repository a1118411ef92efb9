"""The agent file: the same sources, the same bytes, and it runs alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from edgeq.fleet.agent.file import build_agent


def test_it_is_the_same_in_another_process_under_another_clock_and_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys\nos.umask(0o077)\nfrom edgeq.fleet.agent.file import build_agent\n"
        "sys.stdout.write(build_agent().sha256)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert other.stdout == build_agent().sha256


def test_it_holds_the_agents_sources_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(build_agent().data)) as archive:
        names = archive.namelist()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == sorted(names)
    assert {"__main__.py", "edgeq_agent/__main__.py", "edgeq_agent/wire.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_it_runs_without_our_packages(tmp_path: Path) -> None:
    path = tmp_path / build_agent().name
    path.write_bytes(build_agent().data)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "probe", "--home", str(tmp_path / "home")],
        input=b"{}\n",
        capture_output=True,
        timeout=60,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["hello", "result"], done.stderr
    assert events[-1]["result"]["python"].count(".") == 2
