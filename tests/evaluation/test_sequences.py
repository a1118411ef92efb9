"""Models that keep state: samples are independent, unless the data or the user says otherwise."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)

from edgeq.bundle import read_bundle
from edgeq.bundle.make import make_bundle
from edgeq.cli import main
from edgeq.errors import DataError
from edgeq.evaluation import run
from edgeq.evaluation.running import run_all
from edgeq.fleet.agent.payloads import load_samples
from edgeq.store import UNRECORDED
from tests import stateful, streaming
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert

START = np.array(stateful.START, np.float32)
X = stateful.samples()
IDS = np.array([1, 1, 2, 2, 2, 1])
BY_IDS = np.concatenate([np.cumsum(part, axis=0) for part in (X[:2], X[2:5], X[5:])])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An accumulator."""
    path = tmp_path / "total.tflite"
    path.write_bytes(stateful.accumulator())
    return path


def _data(path: Path, **more: Any) -> Path:
    np.savez(path, x=X, y=np.ones(len(X), int), **more)
    return path


@pytest.mark.slow
def test_the_state_is_reset_as_the_samples_say(model: Path, tmp_path: Path) -> None:
    alone = run(model, _data(tmp_path / "d.npz"))
    np.testing.assert_array_equal(alone.outputs[0], START + X)
    one = run(model, tmp_path / "d.npz", sequence=True)
    np.testing.assert_array_equal(one.outputs[0], START + np.cumsum(X, axis=0))
    by_ids = run(model, _data(tmp_path / "ids.npz", sequence_id=IDS), sequence=True)
    np.testing.assert_array_equal(by_ids.outputs[0], START + BY_IDS)
    assert (alone.sequences, one.sequences, by_ids.sequences) == (6, 1, 3)


@pytest.mark.slow
def test_evaluate_says_what_the_samples_are(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, ids = _data(tmp_path / "d.npz"), _data(tmp_path / "ids.npz", sequence_id=IDS)
    expected: list[tuple[list[object], str, int]] = [
        ([plain], "6, independent (the state is reset before each)", 6),
        ([plain, "--sequence"], "6 in 1 sequence (", 1),
        ([ids], "6 in 3 sequences (", 3),
    ]
    for arguments, text, count in expected:
        argv = ["evaluate", str(model), "--data", *[str(each) for each in arguments]]
        assert main(argv) == 0
        assert text in capsys.readouterr().out
        assert main([*argv, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sequences"] == count
    other = tmp_path / "double.tflite"
    other.write_bytes(stateful.stateless())
    assert main(["evaluate", str(other), "--data", str(plain), "--sequence"]) == 0
    assert "note: " + str(other) + " keeps no state: --sequence changes nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sequence_needs_a_model_that_takes_one_sample_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "two.tflite"
    built = Graph()
    x, y = built.tensor("x", (2, 2)), built.tensor("y", (2, 2))
    feature = built.tensor("feature", (2, 2), values=np.eye(2))
    weights = built.tensor("weights", (2, 3), values=np.ones((2, 3)))
    memory = built.tensor("memory", (2, 6))
    built.graph.tensors[memory].isVariable = True
    built.op("SVDF", [x, feature, weights, -1, memory], [y], options="SVDFOptions", rank=1)
    path.write_bytes(built.ends([x], [y]).data())
    np.testing.assert_array_equal(run(path, X).outputs[0], X)
    with pytest.raises(DataError, match="a batch of 2") as caught:
        run(path, X, sequence=True)
    assert caught.value.reported_code == "EQ203"


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [False, True])
def test_golden_samples_are_independent(model: Path, tmp_path: Path, sequence: bool) -> None:
    path, data = tmp_path / "total.eqb", tmp_path / "d.npz"
    np.savez(data, x=np.concatenate([X] * 5))
    make_bundle(
        path, model_file=model, name="total", variant="float", data=data,
        sequence=sequence, store=UNRECORDED,
    )  # fmt: skip
    bundle = read_bundle(path)
    with np.load(io.BytesIO(bundle.read(bundle.parsed.files["golden.npz"].sha256))) as golden:
        np.testing.assert_array_equal(golden["output_0"], START + golden["input_0"])


def test_ids_of_sequences_go_to_the_device(tmp_path: Path) -> None:
    samples = load_samples(_data(tmp_path / "d.npz", sequence_id=IDS))
    assert samples.has_sequences
    with np.load(io.BytesIO(samples.payload)) as payload:
        assert sorted(payload.files) == ["input_0", "sequence_id"]
        np.testing.assert_array_equal(payload["sequence_id"], IDS)
    with pytest.raises(DataError, match="6 integers or texts"):
        load_samples(_data(tmp_path / "wrong.npz", sequence_id=IDS[:4]))
    assert not load_samples(_data(tmp_path / "none.npz")).has_sequences


@pytest.mark.slow
def test_states_that_the_user_names_are_carried_in_every_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = tmp_path / "gru.tflite", tmp_path / "d.npz"
    path.write_bytes(streaming.gru(names=("a", "b")))
    np.savez(data, x=streaming.sequences(3, 5), y=np.zeros((3, 5), int))
    argv = ["evaluate", str(path), "--data", str(data), "--reference", str(path)]
    assert main([*argv, "--state", "a=b", "--json"]) == 0
    carried = json.loads(capsys.readouterr().out)
    assert (carried["sequences"], carried["metrics"]["samples"]) == (3, 15)
    assert main([*argv, "--state", "a=y"]) == 1
    assert "EQ341" in capsys.readouterr().err
    ran = run_all([path], data, states=[("a", "b")], deadline_s=60)[0]
    first = np.arange(15) % 5 == 0
    np.testing.assert_array_equal(ran.inputs[1][first], 0)
    np.testing.assert_allclose(ran.inputs[1][~first], ran.outputs[1][:-1][~first[1:]], rtol=1e-6)
