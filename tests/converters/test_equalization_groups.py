"""Channels are scaled across operations that keep them: the float function stays, and int8 gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples, to_real  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import equalization  # noqa: E402
from edgeq_converters.quantization.equalization.groups import find_groups  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402
from .test_columns import recipe_of  # noqa: E402

SIDE, WIDTH = 8, 8


class Net:
    """Convolutions whose channels differ in size by a factor of up to a thousand."""

    def __init__(self) -> None:
        self.graph, self.random = Graph(), np.random.default_rng(3)
        self.x = self.graph.tensor("x", (1, SIDE, SIDE, 3))

    def conv(self, name: str, source: int, count: int = WIDTH, *, apart: bool = True) -> int:
        depth, side = int(self.shape(source)[-1]), int(self.shape(source)[1])
        sizes = 10.0 ** self.random.uniform(-3, 0, count) if apart else np.ones(count)
        values = self.random.normal(size=(count, 1, 1, depth)) * sizes[:, None, None, None]
        w = self.constant(f"{name}.w", values)
        b = self.constant(f"{name}.b", self.random.normal(size=count) / 5 * sizes)
        out = self.graph.tensor(name, (1, side, side, count))
        options = {"strideH": 1, "strideW": 1, "fusedActivationFunction": 0}
        self.graph.op("CONV_2D", (source, w, b), (out,), options="Conv2DOptions", **options)
        return out

    def op(self, kind: str, name: str, inputs: Sequence[int], shape: Sequence[int], **options: Any) -> int:
        out = self.graph.tensor(name, tuple(shape))
        words = {"options": options.pop("schema")} if "schema" in options else {}
        self.graph.op(kind, inputs, (out,), **words, **options)
        return out

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> int:
        array = np.asarray(values, dtype)
        return self.graph.tensor(name, array.shape, dtype=dtype, values=array)

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(each) for each in self.graph.graph.tensors[index].shape)

    def end(self, source: int) -> Model:
        """Return the model with a last layer that reads small channels as much as large ones."""
        before = self.graph.ends([self.x], [source]).as_model("before")
        (values,) = run_samples(before, samples(before), advance=quiet)
        reach = np.sqrt(np.square(values.reshape(-1, values.shape[-1])).mean(0))
        self.graph.graph.outputs = []
        weights = self.random.normal(size=(5, 1, 1, len(reach))) / np.maximum(reach, 1e-6)
        side = self.shape(source)[1]
        out = self.graph.tensor("out", (1, side, side, 5))
        options = {"strideH": 1, "strideW": 1, "fusedActivationFunction": 0}
        self.graph.op(
            "CONV_2D",
            (source, self.constant("last.w", weights), self.constant("last.b", np.zeros(5))),
            (out,),
            options="Conv2DOptions",
            **options,
        )
        return prepared(self.graph.ends([self.x], [out]).as_model("net"))


def build(kind: str) -> tuple[Model, set[str]]:
    """Return (a model, the tensors that must be scaled together)."""
    net = Net()
    a = net.conv("a", net.x)
    whole = (1, SIDE, SIDE, WIDTH)
    match kind:
        case "prelu":
            alpha = net.constant("alpha", np.random.default_rng(1).uniform(0, 0.5, (1, 1, WIDTH)))
            return net.end(net.op("PRELU", "p", (a, alpha), whole)), {"a", "p"}
        case "times constants":
            sizes = net.constant("sizes", np.linspace(0.5, 2, WIDTH))
            return net.end(net.op("MUL", "m", (a, sizes), whole, schema="MulOptions")), {"a", "m"}
        case "gate":  # as in squeeze-and-excite
            gate = net.op("LOGISTIC", "g", (net.conv("s", net.x, apart=False),), whole)
            return net.end(net.op("MUL", "m", (a, gate), whole, schema="MulOptions")), {"a", "m"}
        case "maximum":
            b = net.conv("b", net.x)
            most = net.op("MAXIMUM", "m", (a, b), whole, schema="MaximumMinimumOptions")
            return net.end(most), {"a", "b", "m"}
        case "more channels":  # zeros beside the channels of a residual, as in BlazeFace
            paddings = net.constant("paddings", [[0, 0], [0, 0], [0, 0], [1, 3]], np.int32)
            wide = (1, SIDE, SIDE, WIDTH + 4)
            padded = net.op("PAD", "padded", (a, paddings), wide, schema="PadOptions")
            total = net.op("ADD", "sum", (padded, net.conv("b", net.x, WIDTH + 4)), wide, schema="AddOptions")
            return net.end(total), {"a", "padded", "b", "sum"}
        case "joined channels":
            wide = (1, SIDE, SIDE, 2 * WIDTH)
            both = net.op(
                "CONCATENATION",
                "both",
                (a, net.conv("b", net.x)),
                wide,
                schema="ConcatenationOptions",
                axis=3,
            )
            return net.end(both), {"a", "b", "both"}
        case _:  # "joined with the input's": these channels keep the factor 1
            wide = (1, SIDE, SIDE, WIDTH + 3)
            both = net.op("CONCATENATION", "both", (a, net.x), wide, schema="ConcatenationOptions", axis=3)
            return net.end(both), {"a", "both", "x"}


KINDS = (
    *("prelu", "times constants", "gate", "maximum", "more channels", "joined channels"),
    "joined with the input's",
)


def samples(model: Model, count: int = 40, seed: int = 1) -> Samples:
    values = np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 3)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(values,))


def real(model: Model, seed: int = 9) -> np.ndarray:
    (values,) = run_samples(model, samples(model, seed=seed), advance=quiet)
    return to_real(values, model.outputs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_scaled_across_what_keeps_them(kind: str) -> None:
    model, together = build(kind)
    names = [
        {tflite_file.tensor_name(model.graph.tensors[i]) for i in group.tensors}
        for group in find_groups(model)
    ]
    assert together in names
    made = equalization.equalize(model, samples(model), advance=quiet)
    assert made.groups
    assert sqnr_db([real(made.model)], [real(model)]) > 90
    plain, equalized = (
        quantize_activations(
            each, recipe=recipe_of("float32", int16_ops=[]), samples=samples(model), histograms=None,
            step=lambda what, total: quiet,
        ).model
        for each in (model, made.model)
    )  # fmt: skip
    gained = sqnr_db([real(equalized)], [real(model)]) - sqnr_db([real(plain)], [real(model)])
    assert gained > 3


@pytest.mark.parametrize("kind", ["product", "swish", "plus constants of pixels"])
def test_what_does_not_scale_with_its_input_keeps_its_channels(kind: str) -> None:
    net = Net()
    a = net.conv("a", net.x)
    whole = (1, SIDE, SIDE, WIDTH)
    if kind == "product":
        out = net.op("MUL", "m", (a, net.conv("b", net.x)), whole, schema="MulOptions")
    elif kind == "swish":
        out = net.op("MUL", "m", (a, net.op("LOGISTIC", "g", (a,), whole)), whole, schema="MulOptions")
    else:
        out = net.op("ADD", "m", (a, net.constant("c", np.ones(whole))), whole, schema="AddOptions")
    model = net.end(out)
    scaled = {tflite_file.tensor_name(model.graph.tensors[i]) for g in find_groups(model) for i in g.tensors}
    assert "a" not in scaled
