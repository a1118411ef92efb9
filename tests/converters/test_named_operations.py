"""Operations that a recipe names: by name, by pattern, or as the head."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import op_report, tflite_file  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.quantization import named_operations  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import OpKind  # noqa: E402

from . import test_slices  # noqa: E402
from .graphs import Graph  # noqa: E402
from .nets import net  # noqa: E402
from .test_columns import head, made, recipe_of, worst_db  # noqa: E402


def resolved(model: Model, **keys: Any) -> Recipe:
    return named_operations.resolved(model, recipe_of(**keys))


def chain(*names: str) -> Model:
    """Return a chain of LOGISTIC operations with these names."""
    graph = Graph()
    first = source = graph.tensor("x", (1, 4))
    for name in names:
        out = graph.tensor(name, (1, 4))
        graph.op("LOGISTIC", (source,), (out,))
        source = out
    return graph.ends([first], [source]).as_model("chain")


def test_the_head_ends_at_the_last_layers() -> None:
    assert named_operations.head(net()) == ("logits", "y")
    assert named_operations.head(head("levels")) == ("c", "fine", "d", "coarse", "out")
    assert named_operations.head(head("beside-sigmoid")) == ("d", "scores", "c", "out")


@pytest.mark.parametrize(
    ("names", "entry", "expected"),
    [
        (("a", "b", "c"), "b", ("b",)),
        (("a/x", "a/y", "b/x"), "a/*", ("a/x", "a/y")),
        (("a1", "a2", "A3"), "a?", ("a1", "a2")),
        (("a1", "a2", "a3"), "a[13]", ("a1", "a3")),
        (("a[1]", "a1"), "a[1]", ("a[1]",)),  # a name comes before a pattern
        (("head", "b"), "head", ("head",)),  # and before the word
        (("a", "b"), "head", ("a", "b")),  # no layer has weights
        (("a", "b"), "*", ("a", "b")),
    ],
)
def test_an_entry_stands_for_operations(
    names: tuple[str, ...], entry: str, expected: tuple[str, ...]
) -> None:
    assert resolved(chain(*names), int16_ops=[entry]).int16_ops == expected


def test_an_operation_that_two_entries_name_is_listed_once() -> None:
    assert resolved(chain("a", "b"), int16_ops=["b", "*"]).int16_ops == ("b", "a")


@pytest.mark.parametrize("entry", ["nothing", "c/*", "a??", "Head", "HEAD"])
@pytest.mark.parametrize("key", ["float_ops", "int16_ops", "int8_ops"])
def test_an_entry_that_fits_nothing_is_refused(key: str, entry: str) -> None:
    with pytest.raises(ConverterError) as caught:
        resolved(chain("a", "b"), **{key: [entry]})
    assert caught.value.code == "EQ330"
    assert repr(entry) in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["int8", "float32", "int8,float32"])
@pytest.mark.parametrize("kind", ["dense", "anchors", "levels", "joined", "beside-sigmoid"])
def test_an_int16_head_keeps_each_column_and_stays_integer(kind: str, io: str) -> None:
    model = head(kind)
    recipe = recipe_of(io, int16_ops=["head"])
    integer, _ = made(model, recipe)
    assert worst_db(model, integer) > 30
    op_report.require_full_integer(op_report.describe(integer, unknown_ops=()), io=recipe.types, subject="m")
    assert "INT16" in {tflite_file.type_name(tensor) for tensor in integer.graph.tensors}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CONCATENATION", "PACK"])
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_an_int16_head_of_joined_parts_stays_integer(kind: str, io: str) -> None:
    model = test_slices.detector(kind=kind)
    recipe = recipe_of(io, int16_ops=["head"])
    integer, _ = test_slices.made(model, io, int16_ops=["head"])

    op_report.require_full_integer(op_report.describe(integer, unknown_ops=()), io=recipe.types, subject="m")
    if kind == "CONCATENATION":
        assert min(test_slices.parts_db(model, integer, test_slices.of_columns)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv", "levels", "beside-sigmoid"])
def test_a_float_head_is_exactly_the_head(kind: str) -> None:
    model = head(kind)
    recipe = recipe_of("float32", scheme="int8-mixed", float_ops=["head"])
    mixed, _ = made(model, recipe)
    assert worst_db(model, mixed) > 40
    computing = [line for line in op_report.op_lines(mixed) if line.op not in op_report.CONVERSIONS]
    assert {line.kind for line in computing} == {OpKind.FLOAT}
