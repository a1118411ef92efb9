"""`edgeq check`: limits as a person reads them, under the blueprint's own keys; raw units in the document."""

from __future__ import annotations

import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq.blueprint import load_blueprint
from edgeq.cli import main
from edgeq.selection import gates_of
from edgeq.values import Metrics, Variant

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


def written(workspace: Path, schemes: str = '["int8"]', folder: str = ".", more: str = "") -> Path:
    """Write a blueprint and its files, of which the model says nothing of its outputs; return its path."""
    place = workspace / folder
    place.mkdir(exist_ok=True)
    audio = {"name": "audio", "batch_shape": [None, None, 4], "dtype": "float32"}
    config = {"layers": [{"class_name": "InputLayer", "config": audio}], "input_layers": [["audio", 0, 0]]}
    with zipfile.ZipFile(place / "kws.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": config}))
    random = np.random.default_rng(0)
    np.savez(place / "calibration.npz", x=random.normal(size=(20, 4)))
    np.savez(place / "evaluation.npz", x=random.normal(size=(600, 4)), y=np.arange(600) % 3)
    text = BLUEPRINT.replace('["int8"]', schemes) + more
    (place / "blueprint.toml").write_text(text)
    return place / "blueprint.toml"


def test_the_limits_have_units(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(workspace)
    assert main(["check", "blueprint.toml"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["limit", "value"]
    assert dict(row.split(maxsplit=1) for row in rows) == {
        "accuracy_drop_max": "1.0 %",
        "output_sqnr_db_min": "20.5 dB",
        "size_max": "64 KiB",
        "latency_p95_max": "5 ms",
    }
    assert main(["check", "blueprint.toml", "--json"]) == 0
    limits = json.loads(capsys.readouterr().out)["limits"]
    assert (limits["size_bytes_max"], limits["latency_p95_ns_max"]) == (65536, 5_000_000)


@pytest.mark.parametrize("quantity", ["25 ms", "25ms", "1500 us", "0.5 s", "2 min", "250000 ns"])
@pytest.mark.parametrize("size", ["512 KiB", "512KiB", "1.5 MB", "64000 B", "1 GiB"])
def test_quantities_are_shown_as_they_were_written(
    quantity: str, size: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = f'[device.raspberry-pi]\nmemory_peak_max = "{size}"\nlatency_p95_max = "9 ms"\n'
    path = written(workspace, more=device)
    text = path.read_text().replace('"64 KiB"', f'"{size}"').replace('"5 ms"', f'"{quantity}"')
    path.write_text(text)
    assert main(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    shown = dict(row.split(maxsplit=1) for row in out.splitlines()[1:])
    assert (shown["size_max"], shown["latency_p95_max"]) == (size, quantity)
    assert "note: raspberry-pi has limits of its own" in err
    assert main(["check", str(path), "--kind", "raspberry-pi"]) == 0
    shown = dict(row.split(maxsplit=1) for row in capsys.readouterr().out.splitlines()[1:])
    assert (shown["memory_peak_max"], shown["latency_p95_max"], shown["size_max"]) == (size, "9 ms", size)
    limits = load_blueprint(path).limits
    variant = Variant(
        name="a", path=path, sha256="", size_bytes=2**40, metrics=Metrics(samples=1, accuracy=1.0)
    )
    gates = {gate.name: gate for gate in gates_of(variant, baseline=variant.metrics, limits=limits)}
    assert gates["size_bytes_max"].miss == f"size_max {size}, got 1024.0 GiB"
    assert gates["latency_p95_ns_max"].text == f"latency_p95_max {quantity} not measured yet"


@pytest.mark.first_is_quick
@pytest.mark.parametrize("schemes", ['["int8"]', '["float16", "int8"]', '["int8", "float16"]', '["int16x8"]'])
@pytest.mark.parametrize("folder", [".", "a folder", "it's"])
def test_the_next_step_works_when_it_is_pasted(
    schemes: str, folder: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(workspace, schemes, folder)
    assert main(["check", str(path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    assert words[:3] == ["edgeq", "convert", str(workspace / folder / "kws.keras")]
    # It gets as far as the model's shapes, which are open here: the command line is complete.
    assert main(words[1:]) == 1
    assert "error[EQ306" in capsys.readouterr().err


def test_the_next_step_names_the_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(workspace)
    assert main(["--workspace", "else where", "check", str(path)]) == 0
    assert "--workspace 'else where'\n" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["int8", "int16x8", "int8-mixed", "int4"])
def test_every_scheme_with_ranges_needs_calibration_data(
    scheme: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(workspace, f'["{scheme}"]')
    path.write_text(path.read_text().replace('calibration = "calibration.npz"\n', ""))
    assert main(["check", str(path)]) == 2
    assert f"expected calibration data for the scheme {scheme}" in capsys.readouterr().err
