"""Float regions around operations without an integer kernel: their places, their conversions, their cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.convert,
    # litert-quantizer's own; conversions run in a child process, where warnings stay warnings.
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.calibration.ranges import calibrated_ranges  # noqa: E402
from edgeq_converters.data.samples import Samples, to_real  # noqa: E402
from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import float_regions, op_report, tflite_file  # noqa: E402
from edgeq_converters.graph.float_regions import conversions  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import float_parts, integer_io  # noqa: E402
from edgeq_converters.quantization.quantize import quantize, tried  # noqa: E402
from edgeq_converters.recipe import Backend, Recipe, Switch  # noqa: E402
from edgeq_converters.values import IoTypes, OpKind, OpLine, Scheme  # noqa: E402
from edgeq_converters.worker.jobs import convert as convert_job  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402

Edgeq = Callable[..., Any]
WITHOUT_KERNEL = ("SIN", "COS", "CUMSUM", "FLOOR", "ELU", "TILE", "CAST", "LOCAL_RESPONSE_NORMALIZATION")
WITH_KERNEL = ("FULLY_CONNECTED", "ADD", "MUL", "TANH", "LOGISTIC", "RESHAPE", "CONCATENATION", "SPLIT")
WIDTH = 6


def step(_what: str, _total: int) -> Any:
    return quiet


class Net:
    """A net under construction whose tensors all have the shape (1, 1, 1, 6)."""

    def __init__(self, seed: int) -> None:
        self.graph = Graph()
        self.random = np.random.default_rng(seed)
        self.x = self.tensor("x")
        self.tensors = [self.x]

    def tensor(self, name: str) -> int:
        return self.graph.tensor(name, (1, 1, 1, WIDTH))

    def add(self, number: int, kind: str, first: int, second: int) -> None:
        """Add one operation, or two where its result has another shape or type."""
        a, b = (self.tensors[-1 - place % len(self.tensors)] for place in (first, second))
        out, graph = self.tensor(f"t{number}"), self.graph
        if kind == "FULLY_CONNECTED":
            values = self.random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
            w = graph.tensor(f"w{number}", (WIDTH, WIDTH), values=values)
            c = graph.tensor(f"c{number}", (WIDTH,), values=np.zeros(WIDTH))
            graph.op(kind, [a, w, c], [out], options="FullyConnectedOptions", keepNumDims=True)
        elif kind in {"ADD", "MUL"}:
            graph.op(kind, [a, b], [out], options=f"{kind.title()}Options")
        elif kind == "RESHAPE":
            shape = self.constant(number, (1, 1, 1, WIDTH))
            graph.op(kind, [a, shape], [out], options="ReshapeOptions")
        elif kind == "CONCATENATION":
            joined = graph.tensor(f"j{number}", (1, 1, 1, 2 * WIDTH))
            graph.op(kind, [a, b], [joined], options="ConcatenationOptions", axis=3)
            begin, size = self.constant(number, (0, 0, 0, 3)), self.constant(-number, (1, 1, 1, WIDTH))
            graph.op("SLICE", [joined, begin, size], [out], options="SliceOptions")
        elif kind == "SPLIT":
            axis = graph.tensor(f"a{number}", (), dtype=np.int32, values=[3])
            parts = [graph.tensor(f"p{number}.{i}", (1, 1, 1, WIDTH // 2)) for i in (0, 1)]
            graph.op(kind, [axis, a], parts, options="SplitOptions", numSplits=2)
            graph.op("CONCATENATION", parts[::-1], [out], options="ConcatenationOptions", axis=3)
        elif kind == "CUMSUM":
            axis = graph.tensor(f"a{number}", (), dtype=np.int32, values=[3])
            graph.op(kind, [a, axis], [out], options="CumsumOptions")
        elif kind == "TILE":
            graph.op(kind, [a, self.constant(number, (1, 1, 1, 1))], [out], options="TileOptions")
        elif kind == "CAST":
            whole = graph.tensor(f"i{number}", (1, 1, 1, WIDTH), dtype=np.int32)
            graph.op(kind, [a], [whole], options="CastOptions")
            graph.op(kind, [whole], [out], options="CastOptions")
        elif kind == "LOCAL_RESPONSE_NORMALIZATION":
            graph.op(
                kind, [a], [out], options="LocalResponseNormalizationOptions",
                radius=2, bias=1.0, alpha=0.1, beta=0.5,
            )  # fmt: skip
        else:
            graph.op(kind, [a], [out])
        self.tensors.append(out)

    def constant(self, number: int, values: Sequence[int]) -> int:
        return self.graph.tensor(f"k{number}", (len(values),), dtype=np.int32, values=values)

    def as_model(self) -> Model:
        """Return the net; what no operation reads is an output."""
        read = {i for operator in self.graph.graph.operators for i in operator.inputs}
        ends = [i for i in self.tensors if i not in read and i != self.x]
        return self.graph.ends([self.x], ends).as_model("net")


def net(layers: Sequence[tuple[str, int, int]], seed: int = 0) -> Model:
    made = Net(seed)
    for number, (kind, first, second) in enumerate(layers, 1):
        made.add(number, kind, first, second)
    return made.as_model()


LAYERS = st.lists(
    st.tuples(st.sampled_from(WITHOUT_KERNEL + 2 * WITH_KERNEL), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=9,
)


def kinds_of(model: Model) -> list[str]:
    return [line.op for line in op_report.op_lines(model)]


def real_conversions(model: Model) -> set[tuple[str, int]]:
    """Return {(kind, source)} of the conversions between real values and integers, each once.

    A tensor is quantized twice where a CONCATENATION needs it in a scale that it shares with others.
    """
    tensors, made = model.graph.tensors, []
    for kind, operator in zip(kinds_of(model), model.graph.operators, strict=True):
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if kind in op_report.CONVERSIONS and "FLOAT32" in {
            tflite_file.type_name(tensors[source]),
            tflite_file.type_name(tensors[target]),
        }:
            made.append((kind, source, tflite_file.quantization(tensors[target])))
    assert len(made) == len(set(made)), "a tensor is converted twice to one scale"
    return {(kind, source) for kind, source, _ in made}


def round_trips(model: Model) -> list[str]:
    """Return the tensors that are quantized and dequantized again at once."""
    quantized = {
        int(operator.outputs[0])
        for kind, operator in zip(kinds_of(model), model.graph.operators, strict=True)
        if kind == "QUANTIZE"
        and tflite_file.type_name(model.graph.tensors[int(operator.inputs[0])]) == "FLOAT32"
    }
    return [
        tflite_file.operation_name(model.graph, operator)
        for kind, operator in zip(kinds_of(model), model.graph.operators, strict=True)
        if kind == "DEQUANTIZE" and int(operator.inputs[0]) in quantized
    ]


def made_by(model: Model, recipe: Recipe) -> tuple[Model, float_parts.FloatPlan, Samples]:
    rows = np.random.default_rng(1).normal(size=(48, 1, 1, WIDTH)).astype(np.float32)
    samples = Samples(inputs=model.inputs, arrays=(rows,))
    planned = float_parts.plan(model, recipe)
    ranges = calibrated_ranges(model, observe(model, samples, advance=quiet), calibrator="minmax")
    made = quantize(model, recipe=planned.recipe, ranges=ranges).model
    made = integer_io.with_unread_inputs(made, io=recipe.core_io)
    if recipe.core_io != "float32":
        made = integer_io.with_types(made, recipe.types)
    return made, planned, samples


def check(layers: Sequence[tuple[str, int, int]], recipe: Recipe) -> None:
    model = prepared(net(layers))
    made, planned, samples = made_by(model, recipe)
    ops = float_regions.operations(model)
    chosen = {op.index for op in ops if op.name in planned.recipe.float_ops}
    lacking = {op.index for op in ops if op.op in WITHOUT_KERNEL and op.reads}
    assert lacking <= chosen or not lacking
    float_lines = float_parts.float_operations(made, planned.reasons)
    assert {each.op for each in float_lines}.isdisjoint({"FULLY_CONNECTED"})
    # Only what the plan names is float, and the file has no more conversions than the plan needs.
    assert {each.name for each in float_lines if each.op != "CAST"} <= set(planned.recipe.float_ops)
    core = recipe.core_io == "float32"
    least = conversions(ops, chosen, float_ends=core)
    if recipe.types == IoTypes(inputs=recipe.core_io, outputs=recipe.core_io):
        assert len(real_conversions(made)) == least
    assert not round_trips(made)
    described = float_parts.describe(made, float_lines, cost=None, unmeasured="")
    computing = [op for op in kinds_of(made) if op not in op_report.CONVERSIONS]
    assert described.share == pytest.approx(len(float_lines) / len(computing))
    # It computes what the float model does: steps of FLOOR and CAST may fall to the other side.
    if not {"FLOOR", "CAST"} & {kind for kind, *_ in layers}:
        expected = run_samples(model, samples, advance=quiet)
        got = run_samples(made, samples, advance=quiet)
        for real, values, info in zip(expected, got, made.outputs, strict=True):
            assert sqnr_db([to_real(values, info)], [real]) > 10 or np.abs(real).max() < 1e-3


@pytest.mark.slow
@given(
    layers=LAYERS,
    scheme=st.sampled_from([Scheme.INT8, Scheme.INT8, Scheme.INT4, Scheme.INT16X8]),
    io=st.sampled_from(["", "float32", "uint8,float32", "float32,int8"]),
)
@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate])
def test_random_places_of_operations_without_a_kernel(
    layers: list[tuple[str, int, int]], scheme: Scheme, io: str
) -> None:
    io = "int16,float32" if scheme is Scheme.INT16X8 and "," in io else io
    check(layers, Recipe(scheme=scheme, io=io, allow_float=True, backend=Backend.LITERT))


PLAIN = Recipe(
    scheme=Scheme.INT8,
    allow_float=True,
    calibrator="minmax",
    bias_correction=Switch.OFF,
    equalization=Switch.OFF,
    backend=Backend.LITERT,
)
TWO_REGIONS = (
    ("FULLY_CONNECTED", 0, 0), ("SIN", 0, 0), ("TANH", 0, 0), ("COS", 0, 0), ("FULLY_CONNECTED", 0, 0),
    ("LOGISTIC", 0, 0), ("FULLY_CONNECTED", 0, 0), ("ELU", 0, 0),
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A float model with two places without integer kernels, and samples."""
    source, data = tmp_path / "float.tflite", tmp_path / "c.npz"
    source.write_bytes(net(TWO_REGIONS).data)
    np.savez(data, x=np.random.default_rng(2).normal(size=(40, 1, 1, WIDTH)).astype(np.float32))
    return source, data


def test_the_float_part_is_described_and_its_cost_measured(files: tuple[Path, Path], tmp_path: Path) -> None:
    source, data = files
    output = tmp_path / "o.tflite"
    done = convert_job.convert(source, output, recipe=PLAIN, data=data, workdir=tmp_path, step=step)
    part = done.float_part
    assert part is not None
    assert [(each.op, each.name) for each in part.operations] == [
        ("SIN", "t2"), ("TANH", "t3"), ("COS", "t4"), ("ELU", "t8"),
    ]  # fmt: skip
    assert [each.reason for each in part.operations] == [
        "has no integer kernel", "between float operations, which saves conversions",
        "has no integer kernel", "has no integer kernel",
    ]  # fmt: skip
    assert all(done.info.ops[each.index].op == each.op for each in part.operations)
    assert (part.regions, part.conversions, part.share) == (2, 4, 0.5)
    assert all(line.kind is OpKind.INTEGER for line in done.info.ops if line.op in WITH_KERNEL[1:2])
    cost = part.cost
    assert cost is not None, part.unmeasured
    assert cost.integer_ns is not None
    assert cost.ratio is not None
    assert cost.ratio_low is not None
    assert cost.ratio_high is not None
    assert 0 < cost.ratio_low <= cost.ratio <= cost.ratio_high
    assert min(cost.file_ns, cost.float_ns, cost.integer_ns) > 0
    assert cost.rounds >= 3


def test_without_leave_the_operations_are_named_before_anything_is_calibrated(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    source, data = files
    steps: list[str] = []

    def record(what: str, total: int) -> Any:
        steps.append(what)
        return quiet

    with pytest.raises(ConverterError) as caught:
        convert_job.convert(
            source, tmp_path / "o.tflite", recipe=Recipe(scheme=Scheme.INT8, backend=Backend.LITERT),
            data=data, workdir=tmp_path, step=record,
        )  # fmt: skip
    assert caught.value.code == "EQ307"
    assert "3 of 8 operations stayed float: SIN (op " in str(caught.value)
    for part in ("--allow-float", "dynamic"):
        assert part in str(caught.value.hint)
    for kind in ("SIN", "COS", "ELU"):
        assert f"{kind} (op" in str(caught.value)
    assert "calibrate" not in steps


def test_every_kind_is_named_and_many_places_of_one_are_counted() -> None:
    lines = [OpLine(index=i, op="SIN", kind=OpKind.FLOAT, reason="why") for i in range(9)]
    lines += [OpLine(index=9 + i, op=f"K{i}", kind=OpKind.FLOAT, reason="why") for i in range(7)]
    text = str(op_report.not_integer(lines, 20, subject="m"))
    assert "16 of 20 operations stayed float: SIN (ops 0, 1, 2 and 6 more: why), K0 (op 9: why)" in text
    assert "K6 (op 15: why)" in text


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scheme"), [("HARD_SWISH", Scheme.INT16X8), ("LOGISTIC", Scheme.INT8)])
def test_an_operation_that_only_the_runtime_refuses_has_no_kernel(kind: str, scheme: Scheme) -> None:
    pytest.importorskip("tensorflow")
    model = prepared(net([("FULLY_CONNECTED", 0, 0), (kind, 0, 0), ("FULLY_CONNECTED", 0, 0)]))
    strict = Recipe(scheme=scheme, io="float32", backend=Backend.TENSORFLOW)
    made = tried(model, recipe=strict)
    assert made is not None
    assert not any(float_parts.float_operations(made, {}))  # the quantizer takes it
    planned = float_parts.plan(model, Recipe(**{**asdict(strict), "allow_float": True}))
    if kind == "LOGISTIC":
        float_parts.require_kernels(made, model, strict)
        assert planned.recipe.float_ops == ()
        return
    with pytest.raises(ConverterError, match=r"HARD_SWISH \(op 1: no int16x8 kernel") as caught:
        float_parts.require_kernels(made, model, strict)
    assert caught.value.code == "EQ307"
    assert planned.recipe.float_ops == ("t2",)


@pytest.mark.slow
def test_from_the_command_line(files: tuple[Path, Path], tmp_path: Path, edgeq: Edgeq) -> None:
    source, data = files
    output = tmp_path / "o.tflite"
    command = ["convert", source, "-o", output, "--calibration", data, "--effort", "quick", "--scheme"]
    refused = edgeq(*command, "int8", "--backend", "litert")
    assert refused.err.startswith("error[EQ307]")
    assert "--allow-float" in refused.err
    done = edgeq(*command, "int8", "--allow-float", "--backend", "litert", "--json")
    assert done.status == 0, done.err
    body = json.loads(done.out)
    assert body["recipe"]["allow_float"] is True
    part = body["float_part"]
    assert [each["op"] for each in part["operations"]] == ["SIN", "TANH", "COS", "ELU"]
    assert part["cost"]["ratio"] > 0
    more = edgeq(*command, "int8", "--allow-float", "--backend", "litert", "--keep-float", "t1")
    assert "float: 1 FULLY_CONNECTED (named by --keep-float)" in more.out
    assert "times its integer part" in more.out
    mixed = edgeq(*command, "int8-mixed", "--backend", "litert", "--json")
    assert json.loads(mixed.out)["float_part"]["operations"] == part["operations"]
    assert edgeq(*command, "float16", "--allow-float").err.startswith("error[EQ101]: --allow-float")
    integer = tmp_path / "i.tflite"
    integer.write_bytes(net(TWO_REGIONS[4:7]).data)
    none = edgeq("convert", integer, "-o", output, "--calibration", data, "--scheme", "int8", "--allow-float",
                 "--json")  # fmt: skip
    assert json.loads(none.out)["float_part"] is None
