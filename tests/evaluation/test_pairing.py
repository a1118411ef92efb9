"""`edgeq evaluate` pairs inputs with data, and outputs with the reference's, by name."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from edgeq.cli import main
from edgeq_converters.errors import ConverterError
from edgeq_converters.worker.jobs import evaluate
from edgeq_converters.worker.protocol import EvaluateJob
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert
INPUTS, OUTPUTS = ("zeta", "mid", "alpha"), ("scores", "boxes", "area")
SHAPE = (1, 4)


def model(path: Path, *, inputs: Any = INPUTS, outputs: Any = OUTPUTS, signature: bool = False) -> Path:
    """Write a model whose inputs and outputs have one shape, so that only names tell them apart.

    scores = zeta - mid, boxes = mid - alpha, area = zeta * alpha.

    Args:
        signature: the names are those of a signature; the tensors are called something else.
    """
    graph: Any = Graph()
    index = {name: graph.tensor(f"t_{name}" if signature else name, SHAPE) for name in (*INPUTS, *OUTPUTS)}
    graph.op("SUB", (index["zeta"], index["mid"]), (index["scores"],), options="SubOptions")
    graph.op("SUB", (index["mid"], index["alpha"]), (index["boxes"],), options="SubOptions")
    graph.op("MUL", (index["zeta"], index["alpha"]), (index["area"],), options="MulOptions")
    graph.ends([index[name] for name in inputs], [index[name] for name in outputs])
    if signature:
        entry = schema.SignatureDefT()
        entry.signatureKey, entry.subgraphIndex = b"serving_default", 0
        # A dictionary's entries are sorted in the file, whatever the order of the graph's inputs is.
        entry.inputs = [_named(name, index[name]) for name in sorted(inputs)]
        entry.outputs = [_named(name, index[name]) for name in sorted(outputs)]
        graph.model.signatureDefs = [entry]
    path.write_bytes(graph.data())
    return path


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def arrays(count: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.normal(size=(count, 4)).astype(np.float32) for name in INPUTS}


def expected(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    zeta, mid, alpha = (given[name] for name in INPUTS)
    return {"scores": zeta - mid, "boxes": mid - alpha, "area": zeta * alpha}


def run(models: list[Path], data: dict[str, np.ndarray], folder: Path) -> tuple[Any, dict[str, np.ndarray]]:
    np.savez(folder / "data.npz", **data)  # type: ignore[arg-type] # its stub takes allow_pickle there
    job = EvaluateJob(models=tuple(models), data=folder / "data.npz", arrays=folder / "out.npz")
    result = evaluate.run(job, lambda _what, _total: lambda _done: None)
    with np.load(folder / "out.npz") as loaded:
        return result, {name: loaded[name] for name in loaded.files}


@pytest.mark.parametrize("signature", [False, True])
def test_every_order_of_inputs_outputs_and_data_gives_the_same_outputs(
    signature: bool, tmp_path: Path
) -> None:
    given = arrays()
    right = expected(given)
    first = model(tmp_path / "first.tflite", signature=signature)
    for inputs, outputs in itertools.product(itertools.permutations(INPUTS), [OUTPUTS, OUTPUTS[::-1]]):
        second = model(tmp_path / "second.tflite", inputs=inputs, outputs=outputs, signature=signature)
        data = {name: given[name] for name in sorted(inputs, key=inputs.index, reverse=True)}
        result, out = run([first, second], data, tmp_path)
        assert [info.name for info in result.infos[1].outputs] == list(OUTPUTS)
        for number, i in itertools.product(range(2), range(3)):
            np.testing.assert_allclose(out[f"run_{number}_output_{i}"], right[OUTPUTS[i]], rtol=1e-6)


def test_data_by_position_follows_each_model_s_own_order(tmp_path: Path) -> None:
    given = arrays()
    swapped = model(tmp_path / "m.tflite", inputs=("alpha", "zeta", "mid"), outputs=("area", "scores"))
    data = {f"input_{i}": given[name] for i, name in enumerate(("alpha", "zeta", "mid"))}
    _, out = run([swapped], data, tmp_path)
    right = expected(given)
    np.testing.assert_allclose(out["run_0_output_0"], right["area"], rtol=1e-6)
    np.testing.assert_allclose(out["run_0_output_1"], right["scores"], rtol=1e-6)


@pytest.mark.parametrize("outputs", [("scores",), ("scores", "boxes"), ("scores", "boxes", "area", "area")])
def test_a_reference_with_other_outputs_is_refused(outputs: tuple[str, ...], tmp_path: Path) -> None:
    first = model(tmp_path / "first.tflite")
    second = model(tmp_path / "second.tflite", outputs=outputs)
    with pytest.raises(ConverterError) as caught:
        run([first, second], arrays(), tmp_path)
    assert caught.value.code == "EQ312"


@pytest.mark.parametrize(
    ("names", "others", "order"),
    [
        (("a", "b", "c"), ("c", "a", "b"), (1, 2, 0)),
        (("a", "b", "c"), ("b", "other", "c"), (1, 0, 2)),
        (("a", "b"), ("x", "y"), (0, 1)),
        (("a", "a"), ("a", "a"), (0, 1)),
        (("a", "b", "c"), ("c", "x", "y"), (1, 2, 0)),
    ],
)
def test_names_decide_and_positions_fill_what_is_left(
    names: tuple[str, ...], others: tuple[str, ...], order: tuple[int, ...]
) -> None:
    assert evaluate.order_of(names, others) == order


@pytest.mark.slow
def test_the_command_compares_outputs_of_one_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = model(tmp_path / "first.tflite", signature=True)
    second = model(tmp_path / "second.tflite", inputs=INPUTS[::-1], outputs=OUTPUTS[::-1], signature=True)
    np.savez(tmp_path / "d.npz", **arrays())  # type: ignore[arg-type] # its stub takes allow_pickle there
    words = ["evaluate", second, "--data", tmp_path / "d.npz", "--reference", first, "--json"]
    assert main([str(word) for word in words]) == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    assert (metrics["agreement"], metrics["useless"]) == (1.0, None)
    assert metrics["output_sqnr_db"] is None or metrics["output_sqnr_db"] > 100
