"""`edgeq check`: limits as a person reads them, under the blueprint's own keys; raw units in the document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.cli import main

BLUEPRINT = """\
schema_version = 1
name = "kws"

[model]
source = "kws.keras"

[data]
calibration = "calibration.npz"
evaluation = "evaluation.npz"

[variants]
schemes = ["int8"]

[require]
accuracy_drop_max = 0.01
output_sqnr_db_min = 20.5
size_max = "64 KiB"
latency_p95_max = "5 ms"
"""


def test_the_limits_have_units(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("kws.keras", "calibration.npz", "evaluation.npz"):
        (workspace / name).write_bytes(b"")
    (workspace / "blueprint.toml").write_text(BLUEPRINT)
    assert main(["check", "blueprint.toml"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["limit", "value"]
    assert dict(row.split(maxsplit=1) for row in rows) == {
        "accuracy_drop_max": "1.0 %",
        "output_sqnr_db_min": "20.5 dB",
        "size_max": "64.0 KiB",
        "latency_p95_max": "5 ms",
    }
    assert main(["check", "blueprint.toml", "--json"]) == 0
    limits = json.loads(capsys.readouterr().out)["limits"]
    assert (limits["size_bytes_max"], limits["latency_p95_ns_max"]) == (65536, 5_000_000)
