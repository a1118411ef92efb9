"""Makes small ONNX models; run as a program with the Python of onnx2tf's environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence[int | str | None]
RANDOM = np.random.default_rng(0)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sizes]],
    outputs: dict[str, tuple[int, Sizes]],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    domain: str = "",
) -> None:
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: (RANDOM.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def classifiers(folder: Path) -> None:
    """An image classifier with a second output, and the same with every way to leave sizes open."""
    nodes = [
        helper.make_node("Conv", ["image", "W", "b"], ["conv"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "D", "d"], ["logits"]),
    ]
    values = weights(W=(8, 3, 3, 3), b=(8,), D=(8, 5), d=(5,))
    batches: dict[str, Sizes] = {
        "classifier": ["N", 3, 16, 12],
        "batch_unset": [None, 3, 16, 12],
        "batch_zero": [0, 3, 16, 12],
        "batch_minus": [-1, 3, 16, 12],
        "open": ["N", 3, "height", "width"],
        "open_minus": [-1, 3, -1, -1],
    }
    for name, sizes in batches.items():
        outputs: dict[str, tuple[int, Sizes]] = {"logits": (FLOAT, [sizes[0], 5])}
        if name == "classifier":  # a map, which becomes channels last
            outputs["features"] = (FLOAT, [sizes[0], 8, 8, 6])
        save(folder / f"{name}.onnx", nodes, {"image": (FLOAT, sizes)}, outputs, values)


def branch(name: str, nodes: Sequence[Any], output: str, values: dict[str, Any] | None = None) -> Any:
    result = helper.make_tensor_value_info(output, FLOAT, None)
    kept = [numpy_helper.from_array(np.asarray(value), key) for key, value in (values or {}).items()]
    return helper.make_graph(list(nodes), name, [], [result], kept)


def branches(folder: Path) -> None:
    """Models with an If: on a constant, on a shape, inside another one, and on a value."""
    values = weights(A=(6, 4), B=(6, 4))
    inner = helper.make_node(
        "If",
        ["is_long"],
        ["inner"],
        then_branch=branch("t2", [helper.make_node("MatMul", ["x", "A"], ["r"])], "r"),
        else_branch=branch("e2", [helper.make_node("MatMul", ["x", "B"], ["r"])], "r"),
    )
    then = branch(
        "t", [inner, helper.make_node("Add", ["inner", "c"], ["r"])], "r", {"c": np.full(1, 1.5, np.float32)}
    )
    other = branch("e", [helper.make_node("MatMul", ["x", "B"], ["r"])], "r")
    shape = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Equal", ["length", "six"], ["is_long"]),
    ]
    numbers = {"one": np.int64(1), "six": np.int64(6), "rate": np.int64(16000)}
    x: tuple[int, Sizes] = (FLOAT, ["N", "length"])
    y: dict[str, tuple[int, Sizes]] = {"y": (FLOAT, ["N", 4])}
    equal = helper.make_node("Equal", ["sr", "rate"], ["is_16k"])
    on = {"then_branch": then, "else_branch": other}
    decided = helper.make_node("If", ["is_16k"], ["z"], **on)
    last = helper.make_node("Relu", ["z"], ["y"])
    save(
        folder / "nested.onnx",
        [*shape, equal, decided, last],
        {"x": x, "sr": (INT64, [])},
        y,
        {**values, **numbers},
    )
    total = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)
    positive = helper.make_node("Greater", ["total", "zero"], ["is_16k"])
    nodes = [*shape, total, positive, decided, last]
    save(folder / "by_value.onnx", nodes, {"x": x}, y, {**values, **numbers, "zero": np.float32(0)})


def others(folder: Path) -> None:
    """A recurrent step with its state, scalar and unread inputs, and operators that onnx2tf does not know."""
    values = weights(W=(6, 4), R=(4, 4))
    step = [
        helper.make_node("MatMul", ["x", "W"], ["a"]),
        helper.make_node("MatMul", ["state", "R"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Tanh", ["c"], ["next"]),
        helper.make_node("Mul", ["next", "gain"], ["y"]),
    ]
    inputs: dict[str, tuple[int, Sizes]] = {
        "x": (FLOAT, ["N", 6]),
        "state": (FLOAT, [2, "N", 4]),
        "gain": (FLOAT, []),
    }
    save(
        folder / "state.onnx", step, inputs, {"y": (FLOAT, [2, "N", 4]), "next": (FLOAT, [2, "N", 4])}, values
    )
    foreign = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Blur", ["r"], ["s"], domain="com.example"),
        helper.make_node("Blur", ["s"], ["y"], domain="com.example"),
    ]
    same: tuple[int, Sizes] = (FLOAT, [1, 6])
    save(folder / "foreign.onnx", foreign, {"x": same}, {"y": same}, domain="com.example")


if __name__ == "__main__":
    makers: list[Callable[[Path], None]] = [classifiers, branches, others]
    for make in makers:
        make(Path(sys.argv[1]))
