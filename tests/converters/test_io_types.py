"""Types of inputs and outputs: uint8, int8 and float32 at the border of one integer model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.convert,
    # litert-quantizer's own; conversions run in a child process, where warnings stay warnings.
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import to_real  # noqa: E402
from edgeq_converters.graph.interface import interface_of, require_interface  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.quantization.integer_io import with_types  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import IoTypes, Scheme  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net, quantized, quiet, samples  # noqa: E402

KINDS = ("int8", "uint8", "float32")


def two_ended() -> Model:
    """Return a model whose first output is its second's source, with an input of indices."""
    random = np.random.default_rng(0)
    graph: Any = Graph()
    x, a, y = graph.tensor("x", (1, 6)), graph.tensor("a", (1, 6)), graph.tensor("y", (1, 6))
    graph.op("ADD", (x, x), (a,), options="AddOptions")
    w = graph.tensor("w", (6, 6), values=random.normal(size=(6, 6)))
    b = graph.tensor("b", (6,), values=np.zeros(6))
    graph.op("FULLY_CONNECTED", (a, w, b), (y,), options="FullyConnectedOptions")
    return normalize(graph.ends([x], [a, y]).as_model("two ended"))


@pytest.mark.parametrize("outputs", KINDS)
@pytest.mark.parametrize("inputs", KINDS)
def test_every_pair_of_types_computes_what_int8_does(inputs: str, outputs: str) -> None:
    from edgeq_converters.data.samples import Samples

    model = two_ended()
    rows = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(rows,))
    core = quantized(model, given)
    made = with_types(core, IoTypes(inputs=inputs, outputs=outputs))
    require_interface(made, interface_of(model), io=IoTypes(inputs=inputs, outputs=outputs))
    for tensor, inner in zip((*made.inputs, *made.outputs), (*core.inputs, *core.outputs), strict=True):
        assert tensor.name == inner.name
        if tensor.dtype == "uint8":
            assert tensor.scale == inner.scale
            assert tensor.zero_point == (inner.zero_point or 0) + 128
    expected, got = (run_samples(each, given, advance=quiet) for each in (core, made))
    for one, other, inner, outer in zip(expected, got, core.outputs, made.outputs, strict=True):
        np.testing.assert_allclose(to_real(one, inner), to_real(other, outer), atol=1e-6)


def test_a_recipe_names_one_type_or_two() -> None:
    assert Recipe(scheme=Scheme.INT8, io="uint8").types == IoTypes(inputs="uint8", outputs="uint8")
    mixed = Recipe(scheme=Scheme.INT8, io="uint8,float32")
    mixed.check()
    assert (mixed.types.inputs, mixed.types.outputs, mixed.core_io) == ("uint8", "float32", "int8")
    assert Recipe(scheme=Scheme.INT8, io="float32").core_io == "float32"
    for scheme, io in (
        (Scheme.INT8, "int16"),
        (Scheme.INT16X8, "uint8"),
        (Scheme.FLOAT16, "uint8"),
        (Scheme.INT8, "uint8,"),
    ):
        with pytest.raises(ValueError, match=r"^io: "):
            Recipe(scheme=scheme, io=io).check()


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "uint8,float32", "int8,uint8", "float32,uint8"])
def test_a_uint8_model_is_converted_evaluated_and_bundled(
    io: str, tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    model = net()
    source, output, data = tmp_path / "net.tflite", tmp_path / "q.tflite", tmp_path / "c.npz"
    source.write_bytes(model.data)
    np.savez(data, x=samples(model, 40).arrays[0])
    done = edgeq("convert", source, "-o", output, "--scheme", "int8", "--calibration", data, "--io", io)
    assert done.status == 0, done.err
    written = Model.read(output)
    assert (written.inputs[0].dtype, written.outputs[0].dtype) == (*io.split(","), io)[:2]
    done = edgeq("evaluate", output, "--data", data, "--reference", source, "--strict", "--json")
    assert done.status == 0, done.err
    done = edgeq("bundle", output, "-o", tmp_path / "q.eqb", "--name", "net", "--data", data)
    assert done.status == 0, done.err
    done = edgeq(
        "convert", source, "-o", output, "--scheme", "int16x8", "--calibration", data, "--io", "uint8"
    )
    assert (done.status, "--io uint8" in done.err) == (2, True)
