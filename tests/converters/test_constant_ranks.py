"""Constants that share the scale of a tensor of another rank: each becomes integers with that scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("litert_quantizer")

from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import calibrated_ranges
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import op_report
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.metrics import sqnr_db
from edgeq_converters.progress import ignore
from edgeq_converters.quantization.quantize import quantize
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import OpKind, Scheme

from .graphs import Graph

pytestmark = pytest.mark.filterwarnings("ignore")
_SHAPES: dict[int, list[int]] = {2: [1, 6], 3: [1, 4, 6], 4: [1, 2, 3, 6]}
_CONSTANTS: tuple[tuple[int, ...], ...] = ((1,), (), (6,), (1, 6), (1, 1, 6), (1, 1, 1, 6))
"""What kernels broadcast to the shapes above."""


def bounded(rank: int, constant: tuple[int, ...], *, first: bool) -> Model:
    """Return a MAXIMUM with a constant."""
    graph = Graph()
    shape = _SHAPES[rank]
    x, y = graph.tensor("x", shape), graph.tensor("y", shape)
    values = np.linspace(0.25, 0.75, int(np.prod(constant, dtype=int)), dtype=np.float32)
    bound = graph.tensor("bound", constant, values=values)
    graph.op("MAXIMUM", [bound, x] if first else [x, bound], [y], options="MaximumMinimumOptions")
    return graph.ends([x], [y]).as_model()


def packed(rank: int) -> Model:
    """Return a PACK of a computed and a constant member."""
    graph = Graph()
    shape = _SHAPES[rank]
    x, y = graph.tensor("x", shape), graph.tensor("y", [*shape[:1], 2, *shape[1:]])
    member = graph.tensor("member", shape, values=np.full(shape, 0.5))
    graph.op("PACK", [x, member], [y], options="PackOptions", axis=1, valuesCount=2)
    return graph.ends([x], [y]).as_model()


def padded(rank: int, value: tuple[int, ...]) -> Model:
    """Return a PADV2 with the constant it pads with."""
    graph = Graph()
    shape = _SHAPES[rank]
    x, y = graph.tensor("x", shape), graph.tensor("y", [*shape[:-1], shape[-1] + 2])
    pads = np.zeros((rank, 2), np.int32)
    pads[-1] = 1
    paddings = graph.tensor("paddings", pads.shape, dtype=np.int32, values=pads)
    graph.op("PADV2", [x, paddings, graph.tensor("value", value, values=[0.5])], [y], options="PadV2Options")
    return graph.ends([x], [y]).as_model()


def selected(rank: int, constant: tuple[int, ...]) -> Model:
    """Return a SELECT_V2 of a computed value or a constant."""
    graph = Graph()
    shape = _SHAPES[rank]
    x, y = graph.tensor("x", shape), graph.tensor("y", shape)
    condition = np.arange(np.prod(shape)).reshape(shape) % 3 > 0
    mask = graph.tensor("mask", shape, dtype=np.bool_, values=condition)
    values = np.full(constant, 0.5, np.float32)
    other = graph.tensor("other", constant, values=values)
    graph.op("SELECT_V2", [mask, x, other], [y], options="SelectV2Options")
    return graph.ends([x], [y]).as_model()


def looked_up(rank: int) -> Model:
    """Return a MAXIMUM of a scalar and a table's rows, whose rank is not that of the table."""
    graph = Graph()
    ids = graph.tensor("x", _SHAPES[rank][:-1], dtype=np.int32)
    table = graph.tensor("table", [5, 6], values=np.linspace(-1, 1, 30))
    rows, y = graph.tensor("rows", _SHAPES[rank]), graph.tensor("y", _SHAPES[rank])
    graph.op("GATHER", [table, ids], [rows], options="GatherOptions", axis=0)
    graph.op("MAXIMUM", [graph.tensor("b", [], values=[0.1]), rows], [y], options="MaximumMinimumOptions")
    return graph.ends([ids], [y]).as_model()


def cases() -> dict[str, Callable[[], Model]]:
    """Return the graphs by name; the first is the quick one."""
    graphs: dict[str, Callable[[], Model]] = {}
    for rank in _SHAPES:
        for constant in _CONSTANTS:
            if len(constant) <= rank:
                for first in (True, False):
                    name = f"MAXIMUM rank {rank} constant {constant} {'first' if first else 'second'}"
                    graphs[name] = partial(bounded, rank, constant, first=first)
                graphs[f"SELECT_V2 rank {rank} constant {constant}"] = partial(selected, rank, constant)
        graphs[f"PACK rank {rank}"] = partial(packed, rank)
        graphs[f"GATHER rank {rank}"] = partial(looked_up, rank)
        for value in ((), (1,)):
            graphs[f"PADV2 rank {rank} value {value}"] = partial(padded, rank, value)
    return graphs


def check(model: Model, scheme: Scheme, least_db: float) -> None:
    made = prepared(model)
    rng, shape = np.random.default_rng(0), model.inputs[0].shape[1:]
    if model.inputs[0].dtype == "int32":
        values = rng.integers(0, 5, (40, *shape)).astype(np.int32)
    else:
        values = rng.uniform(-1, 1, (40, *shape)).astype(np.float32)
    samples = Samples(inputs=made.inputs, arrays=(values,))
    grid = INT16 if scheme is Scheme.INT16X8 else INT8
    histograms = observe(made, samples, advance=ignore)
    ranges = calibrated_ranges(made, histograms, calibrator="minmax", grid=grid)
    recipe = Recipe(scheme=scheme, io="float32", backend=Backend.LITERT)
    integer = quantize(made, recipe=recipe, ranges=ranges).model
    kinds = [line.kind for line in op_report.op_lines(integer) if line.op not in op_report.CONVERSIONS]
    assert kinds == [OpKind.INTEGER] * len(kinds)
    expected = run_samples(made, samples, advance=ignore)
    got = run_samples(integer, samples, advance=ignore)
    assert sqnr_db(got, expected) > least_db


CASES = cases()


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", CASES)
def test_a_constant_of_any_rank_gets_the_scale_it_shares(name: str) -> None:
    check(CASES[name](), Scheme.INT8, 35)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_constant_of_any_rank_gets_the_scale_it_shares_with_16_bits(name: str) -> None:
    check(CASES[name](), Scheme.INT16X8, 60)
