"""The search: float regions where they help, int8 where it is best, reuse of records, and bad input."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.blueprint import load_blueprint
from edgeq.cli import main
from edgeq.conversion import Recipe, Scheme, Switch, save_recipe
from edgeq.files import sha256_of
from edgeq.kernels import KIND, KernelRow, KernelTable, record_class, to_json
from edgeq.search.latencies import ThisMachine
from edgeq.search.measuring import Latency
from edgeq.search.run import SearchResult, search
from edgeq.store import Store
from edgeq.values import Variant

pytestmark = [pytest.mark.convert, pytest.mark.slow]

BLUEPRINT = """
schema_version = 1
name = "{name}"
prefer = ["size"]
[model]
source = "{source}"
[data]
calibration = "calibration.npz"
evaluation = "evaluation.npz"
[variants]
schemes = ["int8"]
[require]
{require}
"""

# Without correction, which repairs the planted operations too: these tests are about float regions.
PLAIN = Recipe(scheme=Scheme.INT8, calibrator="minmax", bias_correction=Switch.OFF, equalization=Switch.OFF)


@pytest.fixture(scope="module")
def planted(made_by: Callable[[str], Path]) -> Path:
    return made_by("make_planted.py")


def blueprint(folder: Path, name: str, require: str = "output_sqnr_db_min = 15.0") -> Path:
    path = folder / f"{name}-blueprint.toml"
    path.write_text(BLUEPRINT.format(name=name, source=f"{name}.tflite", require=require))
    return path


class Counted:
    """Times on this machine, and counts the requests."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._machine = ThisMachine(rounds=2)

    @property
    def where(self) -> str:
        return self._machine.where

    @property
    def machine(self) -> str:
        return self._machine.machine

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        self.asked.append(len(variants))
        return self._machine.measure(variants)


def run(path: Path, workspace: Path, *, count: int = 2, timing: Counted | None = None) -> SearchResult:
    with Store.open(workspace) as store:
        return search(
            load_blueprint(path),
            workspace=workspace,
            store=store,
            timing=timing or Counted(),
            count=count,
            base=PLAIN,
        )


def names(result: SearchResult) -> list[str]:
    return [point.variant.name for point in result.scores.points]


@pytest.fixture(scope="module")
def outlier(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, SearchResult]:
    workspace = tmp_path_factory.mktemp("outlier")
    path = blueprint(planted, "outlier")
    return path, workspace, run(path, workspace)


def test_the_float_region_of_a_planted_operation_is_chosen(outlier: tuple[Path, Path, SearchResult]) -> None:
    _, _, result = outlier
    chosen = result.scores.chosen
    assert chosen is not None
    int8 = next(point for point in result.scores.points if point.variant.name == "int8")
    assert not int8.admissible
    assert len(chosen.built.recipe.float_ops) == 1
    assert chosen.variant.metrics.output_sqnr_db is not None
    assert int8.variant.metrics.output_sqnr_db is not None
    assert chosen.variant.metrics.output_sqnr_db > int8.variant.metrics.output_sqnr_db + 15
    assert chosen.variant.size_bytes < 1.6 * int8.variant.size_bytes
    assert "int8 fails output_sqnr_db_min" in result.scores.verdict
    assert "1 operation float" in result.scores.verdict


def test_every_candidate_has_a_file_and_a_record_with_its_recipe(
    outlier: tuple[Path, Path, SearchResult],
) -> None:
    _, workspace, result = outlier
    with Store.open(workspace) as store:
        bodies = [record.body for record in store.runs("search-candidate")]
    assert {body["name"] for body in bodies} == set(names(result))
    for point in result.scores.points:
        body = next(each for each in bodies if each["name"] == point.variant.name)
        assert body["sha256"] == point.variant.sha256
        assert body["recipe"] == json.loads(json.dumps(point.built.recipe.to_dict()))
        assert point.variant.path.is_file()
        assert point.latency is not None
        assert point.latency.low_ns <= point.latency.p50_ns <= point.latency.high_ns


def test_a_scheme_that_the_machine_runs_slowly_is_not_built(
    outlier: tuple[Path, Path, SearchResult], planted: Path
) -> None:
    _, workspace, _ = outlier
    path = blueprint(planted, "outlier").with_name("wide-blueprint.toml")
    text = blueprint(planted, "outlier").read_text("utf-8")
    path.write_text(text.replace('["int8"]', '["int8", "int16x8"]'))
    row = KernelRow(operation="CONV_2D", scheme=Scheme.INT16X8, kernel="reference", ratio=40.0)
    table = KernelTable(
        machine=platform.machine(),
        runtime="r 1",
        source="",
        measured_on="2026-01-01",
        emulated=False,
        rows=(row,),
    )
    with Store.open(workspace) as store:
        store.record_run(KIND, "this machine", to_json(table))
    result = run(path, workspace)
    (refused,) = result.to_json()["refused"]
    assert refused["name"] == "int16x8"
    assert "slower than float32 there: CONV_2D 40.0 times (reference)" in refused["problem"]
    assert "int16x8" not in names(result)
    assert "int8" in names(result)


class Elsewhere(Counted):
    """Times on this machine what is for a device of another class."""

    @property
    def machine(self) -> str:
        return "pi"


@pytest.mark.parametrize(
    ("machine", "schemes", "refused"),
    [("aarch64", ["int16x8", "float16"], ["int16x8"]), ("armv7l", ["float16"], ["float16"])],
)
def test_a_scheme_that_a_class_of_devices_has_no_fast_kernels_for_is_not_built(
    outlier: tuple[Path, Path, SearchResult],
    planted: Path,
    machine: str,
    schemes: list[str],
    refused: list[str],
) -> None:
    _, workspace, _ = outlier
    text = blueprint(planted, "outlier").read_text("utf-8")
    path = planted / f"{machine}-blueprint.toml"
    path.write_text(text.replace('["int8"]', json.dumps(["int8", *schemes])))
    with Store.open(workspace) as store:
        record_class("pi", machine, store)
    result = run(path, workspace, timing=Elsewhere())
    reasons = {each["name"]: each["problem"] for each in result.to_json()["refused"]}
    assert list(reasons) == refused
    for reason in reasons.values():
        assert "described, not measured: LiteRT, post-training" in reason
        assert f"({machine}, " in reason
        assert "\n" not in reason
    assert set(schemes) - set(refused) <= set(names(result))


def test_a_second_search_repeats_no_step(outlier: tuple[Path, Path, SearchResult]) -> None:
    path, workspace, first = outlier
    stamps = {file: file.stat().st_mtime_ns for file in workspace.rglob("*.tflite")}
    timing = Counted()
    again = run(path, workspace, timing=timing)
    assert again.done == 0
    assert again.reused == first.done + first.reused
    assert timing.asked == []
    assert {file: file.stat().st_mtime_ns for file in workspace.rglob("*.tflite")} == stamps
    assert again.scores.verdict == first.scores.verdict
    assert names(again) == names(first)
    assert again.regions == first.regions


def test_an_interrupted_search_resumes_and_rebuilds_a_damaged_candidate(
    planted: Path, tmp_path: Path
) -> None:
    path = blueprint(planted, "outlier")

    class Stopped(Counted):
        def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path, count=1, timing=Stopped())
    made = len(list(tmp_path.rglob("*.tflite")))
    timing = Counted()
    result = run(path, tmp_path, count=1, timing=timing)
    assert result.done == 1  # the timing session
    assert result.reused == made + 1  # the float regions and every candidate
    assert timing.asked == [made]
    spoilt = next(point.variant for point in result.scores.points if point.variant.name == "int8")
    spoilt.path.write_bytes(b"spoilt")
    again = run(path, tmp_path, count=1, timing=timing)
    assert again.done == 1  # the damaged candidate alone is made again
    assert spoilt.path.read_bytes() != b"spoilt"
    assert timing.asked == [made]


def test_other_data_is_searched_again(outlier: tuple[Path, Path, SearchResult], tmp_path: Path) -> None:
    path, workspace, _ = outlier
    data = np.load(path.with_name("evaluation.npz"))
    np.savez(path.with_name("fewer.npz"), x=data["x"][:90], y=data["y"][:90])
    other = path.with_name("fewer.toml")
    other.write_text(path.read_text().replace("evaluation.npz", "fewer.npz"))
    again = run(other, workspace)
    assert all(not each.reused for each in again.candidates)
    assert (
        again.reused == 2
    )  # float regions are measured without evaluation data; the same models are timed once


def test_int8_is_chosen_where_it_is_best(planted: Path, tmp_path: Path) -> None:
    result = run(blueprint(planted, "even", "output_sqnr_db_min = 10.0"), tmp_path, count=1)
    assert result.scores.chosen is not None
    assert result.scores.chosen.variant.name == "int8"
    assert result.scores.verdict.startswith("all int8 is best: it meets every limit")


def test_float_outputs_keep_the_operations_after_the_logits_float(planted: Path, tmp_path: Path) -> None:
    path = blueprint(planted, "outlier")
    path = path.rename(path.with_name("float-io.toml"))
    path.write_text(path.read_text().replace('schemes = ["int8"]', 'schemes = ["int8"]\nio = "float32"'))
    result = run(path, tmp_path, count=1)
    (mixed,) = (each for each in result.candidates if each.name.startswith("mixed"))
    assert set(result.regions.after_logits) < set(mixed.recipe.float_ops)
    assert mixed.recipe.io == "float32"


Words = Callable[..., tuple[int, str, str]]


@pytest.fixture
def edgeq(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Words:
    def line(*words: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(["--workspace", str(tmp_path / "ws"), *(str(word) for word in words)])
        out, err = capfd.readouterr()
        return status, out, err

    return line


def test_the_command_writes_the_model_the_document_and_the_page(
    planted: Path, tmp_path: Path, edgeq: Words
) -> None:
    path = blueprint(planted, "outlier")
    model, page = tmp_path / "best.tflite", tmp_path / "search.html"
    save_recipe(PLAIN, tmp_path / "plain.json")
    status, out, err = edgeq(
        "search", path, "--candidates", 1, "--recipe", tmp_path / "plain.json",
        "-o", model, "--html", page, "--json",
    )  # fmt: skip
    assert status == 0, err
    document = json.loads(out)
    assert document["schema"] == "edgeq.search/1"
    assert document["path"] == str(model)
    assert document["chosen"].startswith("mixed-")
    assert document["recipe"]["scheme"] == "int8-mixed"
    assert document["timed_on"] == "host"
    chosen = next(each for each in document["candidates"] if each["name"] == document["chosen"])
    assert model.stat().st_size == chosen["size_bytes"]
    assert "Mixed precision search of outlier" in page.read_text(encoding="utf-8")
    # The recipe alone reproduces the model.
    (tmp_path / "recipe.json").write_text(json.dumps(document["recipe"]))
    status, _, err = edgeq(
        "convert", document["reference"], "-o", tmp_path / "again.tflite", "--recipe",
        tmp_path / "recipe.json", "--calibration", planted / "calibration.npz",
    )  # fmt: skip
    assert status == 0, err
    assert (tmp_path / "again.tflite").read_bytes() == model.read_bytes()


def test_the_lineage_of_a_chosen_model_has_its_source_and_its_search(
    outlier: tuple[Path, Path, SearchResult], planted: Path, edgeq: Words
) -> None:
    path, workspace, result = outlier
    with Store.open(workspace) as store:
        store.record_run("search", "outlier", result.to_json())
    assert result.scores.chosen is not None
    chosen = result.scores.chosen.variant
    status, out, err = edgeq("--workspace", workspace, "lineage", chosen.path, "--json")
    assert status == 0, err
    first, second = json.loads(out)["lineage"]
    assert first["output"]["sha256"] == chosen.sha256
    assert first["recipe"]["float_ops"] == list(result.scores.chosen.built.recipe.float_ops)
    assert first["chosen_by"]["blueprint"]["sha256"] == load_blueprint(path).digest
    assert first["chosen_by"]["evaluation"]["sha256"] == sha256_of(planted / "evaluation.npz")
    assert Path(second["source"]["path"]).name == "outlier.tflite"
    status, out, err = edgeq("--workspace", workspace, "lineage", chosen.path)
    assert "searched under" in out
    status, _, err = edgeq("--workspace", workspace, "reproduce", chosen.path)
    assert status == 0, err


def test_limits_that_no_candidate_meets_end_with_status_3(planted: Path, edgeq: Words) -> None:
    path = blueprint(planted, "even", 'size_max = "1 KiB"')
    status, out, err = edgeq("search", path, "--candidates", 1)
    assert status == 3
    assert "error[EQ700]" in err
    assert "no candidate meets every limit" in out


def test_bad_input_is_reported_in_one_line(planted: Path, tmp_path: Path, edgeq: Words) -> None:
    cases = [
        (tmp_path / "absent.toml", 2, "EQ110"),
        (blueprint(planted, "absent-model"), 2, "EQ110"),
    ]
    x = np.load(planted / "calibration.npz")["x"].copy()
    x[0] = np.inf
    for name in ("even.tflite", "evaluation.npz"):
        (tmp_path / name).write_bytes((planted / name).read_bytes())
    np.savez(tmp_path / "calibration.npz", x=x)
    cases.append((blueprint(tmp_path, "even"), 1, "EQ204"))
    for path, expected, code in cases:
        status, _, err = edgeq("search", path, "--candidates", 1)
        assert status == expected, err
        assert f"error[{code}]" in err
        assert "Traceback" not in err


def test_a_quantized_source_is_refused(planted: Path, tmp_path: Path, edgeq: Words) -> None:
    for name in ("calibration.npz", "evaluation.npz"):
        (tmp_path / name).write_bytes((planted / name).read_bytes())
    status, _, err = edgeq(
        "convert", planted / "even.tflite", "-o", tmp_path / "q.tflite", "--scheme", "int8",
        "--calibration", tmp_path / "calibration.npz",
    )  # fmt: skip
    assert status == 0, err
    status, _, err = edgeq("search", blueprint(tmp_path, "q"), "--candidates", 1)
    assert status == 1
    assert "error[EQ304]" in err


def test_an_unknown_device_is_reported_before_any_work(planted: Path, tmp_path: Path, edgeq: Words) -> None:
    status, _, err = edgeq("search", blueprint(planted, "even"), "--device", "nowhere")
    assert status == 2
    assert "error[EQ103]" in err
    assert not list(tmp_path.rglob("*.tflite"))


def test_candidates_are_timed_once_on_a_device(planted: Path, tmp_path: Path, edgeq: Words) -> None:
    path = blueprint(planted, "outlier")
    status, _, err = edgeq("devices", "emulate", "pi", "--detach")
    assert status == 0, err
    try:
        status, out, err = edgeq("search", path, "--candidates", 1, "--device", "pi", "--json")
        assert status == 0, err
        document = json.loads(out)
        assert document["timed_on"] == "device"
        assert all(each["latency_ns"]["memory_peak_bytes"] > 0 for each in document["candidates"])
        with Store.open(tmp_path / "ws") as store:
            assert len(store.benches(device="pi")) == 2 * len(document["candidates"])
        status, out, err = edgeq("search", path, "--candidates", 1, "--device", "pi", "--json")
        assert status == 0, err
        assert json.loads(out)["done"] == 0
    finally:
        edgeq("devices", "stop", "pi")
