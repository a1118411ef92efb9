"""The demo: its reported figures are true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import main
from edgeq.demo.digits import load_digits, with_fog
from edgeq.demo.folder import MARK, prepare
from edgeq.demo.model import check_extras
from edgeq.errors import MissingExtra, UsageError
from edgeq.files import sha256_of

from .conftest import EDGEQ, DemoRun

pytestmark = [pytest.mark.convert, pytest.mark.slow]


def test_it_ends_within_three_minutes_with_a_line_for_each_step(demo: DemoRun) -> None:
    # The promise on 2 cores; it takes about half a minute there.
    assert demo.seconds < 180
    begun = [line for line in demo.stderr.splitlines() if line.startswith("[")]
    assert len(begun) == 13
    assert begun[0].startswith("[ 1/13] train")
    assert demo.stderr.count("Traceback") == 0


def test_the_variants_are_good_and_the_choice_is_the_smallest(demo: DemoRun) -> None:
    document = demo.document
    assert document["schema"] == "edgeq.demo/1"
    assert document["baseline"]["accuracy"] > 0.95
    sizes = {variant["name"]: variant["size_bytes"] for variant in document["variants"]}
    for variant in document["variants"]:
        assert variant["metrics"]["accuracy"] >= document["baseline"]["accuracy"] - 0.01
        assert variant["metrics"]["agreement"] >= 0.97
        assert sha256_of(demo.folder / f"{variant['name']}.tflite") == variant["sha256"]
    assert document["chosen"] == min(sizes, key=lambda name: sizes[name]) == "int8"


def test_the_second_plan_of_every_deploy_was_empty(demo: DemoRun) -> None:
    assert [deploy["again_steps"] for deploy in demo.document["deploys"]] == [0, 0]
    first, second = demo.document["deploys"]
    # The runtime is sent once.
    assert second["sent_bytes"] < 200_000 < first["sent_bytes"]


def test_the_device_was_measured(demo: DemoRun) -> None:
    bench = demo.document["bench"]
    latency = bench["latency_ns"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p95"] <= latency["max"]
    assert bench["init_ns"] > 0
    assert bench["first_inference_ns"] >= latency["min"]
    assert bench["memory"]["peak_bytes"] > 10_000_000


def test_the_shift_raises_an_alarm_and_normal_traffic_does_not(demo: DemoRun) -> None:
    drift = demo.document["drift"]
    assert drift["alpha"] == 0.001
    assert drift["normal"]["alarm"] is False
    assert drift["normal"]["e_value"] < 1 / drift["alpha"]
    assert drift["shifted"]["alarm"] is True
    assert drift["shifted"]["e_value"] >= 1 / drift["alpha"]
    assert drift["normal"]["accuracy"] > 0.95
    assert drift["collected_again"] == 0
    assert drift["normal"]["windows"] == drift["shifted"]["windows"] == 12


def test_it_rolled_back_to_the_release_before(demo: DemoRun) -> None:
    first, second = demo.document["deploys"]
    assert demo.document["rolled_back_to"] == first["release"] != second["release"]
    link = demo.folder / "device" / "home" / ".edgeq" / "models" / "digits" / "current"
    assert link.resolve().name == first["release"]


def test_the_report_is_one_page_that_needs_no_network(demo: DemoRun) -> None:
    page = Path(demo.document["report"]).read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page
    # Except for scripts (plotly.js names addresses that the policy blocks), nothing is loaded.
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    assert "digits" in markup
    outside = re.findall(r"(?:src|href)=[\"'][a-z]+:[^\"']*", markup)
    assert [link for link in outside if "data:" not in link] == []
    assert "stylesheet" not in markup


def test_the_device_ends_with_the_demo(demo: DemoRun) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, timeout=30, check=True)
    assert str(demo.folder / "device") not in listed.stdout


def test_it_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="other files"):
        prepare(tmp_path)
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_an_earlier_run_is_cleared_except_for_its_wheels(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    (tmp_path / "old.tflite").touch()
    (tmp_path / "device" / "home").mkdir(parents=True)
    wheels = tmp_path / ".edgeq" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "some.whl").touch()
    (tmp_path / ".edgeq" / "store.db").touch()
    prepare(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [MARK, ".edgeq/wheels/some.whl"]


def test_a_missing_extra_is_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.demo.model.NEEDED", {"no_such_module": "demo"})
    with pytest.raises(MissingExtra, match="no_such_module is not installed"):
        check_extras()


def test_the_parts_of_the_data_are_disjoint_and_fog_keeps_the_range() -> None:
    digits = load_digits()
    parts = (digits.training, digits.calibration, digits.evaluation, digits.traffic)
    assert [len(part.x) for part in parts] == [900, 197, 400, 300]
    fogged = with_fog(digits.traffic.x)
    assert fogged.shape == digits.traffic.x.shape
    assert float(fogged.min()) >= 0
    assert float(fogged.max()) <= 1
    assert not np.allclose(fogged.mean(), digits.traffic.x.mean(), atol=0.1)


def test_the_bundles_are_reproducible_byte_for_byte(demo: DemoRun, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo.folder, copy, ignore=shutil.ignore_patterns("device", ".edgeq"))
    argv: list[str | Path] = [
        EDGEQ,
        "--workspace",
        copy,
        "bundle",
        copy / "int8.tflite",
        "--blueprint",
        copy / "blueprint.toml",
    ]
    for name in ("one.eqb", "two.eqb"):
        subprocess.run([*argv, "-o", copy / name], check=True, capture_output=True, timeout=120)
    assert (copy / "one.eqb").read_bytes() == (copy / "two.eqb").read_bytes()
    with zipfile.ZipFile(copy / "one.eqb") as archive:
        assert json.loads(archive.read("manifest.json"))["labels"] == [str(digit) for digit in range(10)]
