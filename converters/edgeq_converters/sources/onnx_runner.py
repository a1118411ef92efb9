"""The program that runs in onnx2tf's environment: describe, convert and run an ONNX model.

It knows nothing of edgeq. Requests come as JSON lines on standard input, answers leave as JSON lines on
standard output; what the libraries print goes to standard error. An answer is {"result": ...} or
{"error": {"kind": ..., "text": ...}}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Refused(Exception):
    """A request that the model does not permit.

    Args:
        kind: `read`, `invalid`, `operators`, `convert` or `run`.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def describe(path: str) -> dict[str, Any]:
    """Return the inputs, outputs and opset of a model; an open size is None, an unknown rank too."""
    import onnx

    try:
        model = onnx.load(path)
    except Exception as error:
        raise Refused("read", gist(error)) from error
    try:
        onnx.checker.check_model(path)
    except Exception as error:
        raise Refused("invalid", gist(error)) from error
    return {
        "inputs": [_described(onnx, item) for item in inputs_of(model)],
        "opset": max((int(item.version) for item in model.opset_import if not item.domain), default=0),
    }


def inputs_of(model: Any) -> list[Any]:
    """Return the inputs of a model; old files list their weights there as well."""
    constants = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in constants]


def _described(onnx: Any, item: Any) -> dict[str, Any]:
    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type") or not kind.HasField("shape"):
        return {"name": item.name, "sizes": None, "dtype": "float32"}
    return {
        "name": item.name,
        "sizes": [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim],
        "dtype": np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name,
    }


def convert(
    path: str, shapes: Mapping[str, list[int]], constants: Mapping[str, float], folder: str
) -> dict[str, Any]:
    """Write a float .tflite of a model in fixed shapes, and return where it is.

    Args:
        shapes: of every input that is not in `constants`.
        constants: {input: the value that it has in all its elements}; these inputs disappear.
        folder: where the files go; it exists and is empty.
    """
    import onnx

    model = onnx.load(path)
    operators = sum(node.op_type != "Constant" for node in all_nodes(model.graph))
    fix_inputs(model, shapes, constants)
    decide_branches(model)
    model = simplified(model)
    unknown = unknown_operators(model)
    if unknown:
        raise Refused("operators", ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items())))
    source = Path(folder) / "fixed.onnx"
    onnx.save(model, str(source))
    # An image has its channels second, and a .tflite has them last. An input with three axes may as well be
    # the state of a recurrent layer: it keeps its shape.
    kept = [name for name, sizes in shapes.items() if len(sizes) == 3]
    try:
        with contextlib.chdir(folder):
            from onnx2tf import convert as onnx2tf

            onnx2tf(
                input_onnx_file_path=source.name,
                output_folder_path="made",
                output_signaturedefs=True,
                copy_onnx_input_output_names_to_tflite=True,
                not_use_onnxsim=True,
                keep_shape_absolutely_input_names=kept or None,
                report_op_coverage=True,
                non_verbose=True,
                verbosity="error",
            )
    except (Exception, SystemExit) as error:  # it ends the process on some failures
        raise Refused("convert", _refusals(Path(folder) / "made") or gist(error)) from error
    return {"tflite": str(Path(folder) / "made" / "fixed_float32.tflite"), "operators": operators}


def fix_inputs(model: Any, shapes: Mapping[str, list[int]], constants: Mapping[str, float]) -> None:
    """Give each input its shape or its constant; shapes that followed from open ones are dropped."""
    import onnx

    for item in inputs_of(model):
        sizes = item.type.tensor_type.shape.dim
        if item.name in constants:
            kind = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
            value = np.full([max(size.dim_value, 1) for size in sizes], constants[item.name], kind)
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, item.name))
            model.graph.input.remove(item)
            continue
        del sizes[:]
        for size in shapes[item.name]:
            sizes.add().dim_value = size
    del model.graph.value_info[:]
    for item in model.graph.output:
        for size in item.type.tensor_type.shape.dim:
            size.Clear()


_OF_VALUES = frozenset({"NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "Scan", "If"})
"""Operators whose outputs may have shapes that depend on values."""


def decide_branches(model: Any) -> None:
    """Put the branch that is taken in place of each If whose condition follows from shapes and constants."""
    graph = model.graph
    number = 0
    while (place := _decidable(graph)) is not None:
        node, prefix = graph.node[place], f"branch{number}"
        branches = {item.name: item.g for item in node.attribute}
        taken = branches["then_branch" if _evaluated(model, node.input[0]) else "else_branch"]
        nodes = [*graph.node[:place], *_inlined(taken, node, prefix), *graph.node[place + 1 :]]
        weights = _renamed_initializers(taken, prefix)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(weights)
        number += 1


def _decidable(graph: Any) -> int | None:
    """Return the position of the first If whose condition is fixed."""
    for place, node in enumerate(graph.node):
        if node.op_type == "If" and _is_fixed(graph, node.input[0]):
            return place
    return None


def _makers(graph: Any) -> dict[str, Any]:
    return {name: node for node in graph.node for name in node.output}


def _is_fixed(graph: Any, name: str) -> bool:
    """Return whether a tensor has the same value for all values of the inputs."""
    makers, inputs = _makers(graph), {item.name for item in graph.input}
    waiting, seen = [(name, False)], set()  # (tensor, whether only its shape counts)
    while waiting:
        tensor, shape_only = waiting.pop()
        if (tensor, shape_only) in seen:
            continue
        seen.add((tensor, shape_only))
        if tensor in inputs and not shape_only:
            return False
        node = makers.get(tensor)
        if node is None:
            continue
        if node.domain or node.op_type in _OF_VALUES or node.op_type.startswith("Random"):
            return False
        shapes = shape_only or node.op_type in {"Shape", "Size"}
        values_from = _VALUES_FROM.get(node.op_type, len(node.input))
        waiting += [
            (given, shapes and position < values_from) for position, given in enumerate(node.input) if given
        ]
    return True


# The shape of these operators' output follows from the values of the inputs from this one on.
_VALUES_FROM = {
    "ConstantOfShape": 0, "Range": 0, "CenterCropPad": 1, "Expand": 1, "OneHot": 1, "Pad": 1, "ReduceL1": 1,
    "ReduceL2": 1, "ReduceLogSum": 1, "ReduceLogSumExp": 1, "ReduceMax": 1, "ReduceMean": 1, "ReduceMin": 1,
    "ReduceProd": 1, "ReduceSum": 1, "ReduceSumSquare": 1, "Reshape": 1, "Resize": 1, "Slice": 1, "Split": 1,
    "Squeeze": 1, "Tile": 1, "TopK": 1, "Unsqueeze": 1, "Upsample": 1, "AffineGrid": 1, "Col2Im": 1,
}  # fmt: skip


def _evaluated(model: Any, name: str) -> bool:
    """Return the value of a fixed condition, from the part of the graph that computes it."""
    import onnx

    graph = model.graph
    makers = _makers(graph)
    needed, waiting = set(), [name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            waiting += [given for given in node.input if given]
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:]
    part.graph.node.extend(node for node in graph.node if id(node) in needed)
    del part.graph.output[:]
    part.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, None))
    zeros = {
        item.name: np.zeros(
            [size.dim_value for size in item.type.tensor_type.shape.dim],
            onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type),
        )
        for item in inputs_of(part)
    }
    engine = session(part.SerializeToString(), optimized=False)
    return bool(np.all(engine.run([name], zeros)[0]))


def _inlined(branch: Any, node: Any, prefix: str) -> list[Any]:
    """Return the nodes of a branch with names of their own, and its outputs under the If's names."""
    import onnx

    own = {name for inner in branch.node for name in inner.output} | {
        item.name for item in branch.initializer
    }
    names = {name: f"{prefix}/{name}" for name in own if name}
    nodes = []
    for inner in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{prefix}/{inner.name}"
        _rename(copy, names)
        nodes.append(copy)
    for result, given in zip(node.output, branch.output, strict=True):
        source = names.get(given.name, given.name)
        nodes.append(onnx.helper.make_node("Identity", [source], [result], name=f"{prefix}/{result}"))
    return nodes


def _rename(node: Any, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for item in node.attribute:
        for graph in [*([item.g] if item.HasField("g") else []), *item.graphs]:
            for inner in graph.node:
                _rename(inner, names)
            for given in graph.output:
                given.name = names.get(given.name, given.name)


def _renamed_initializers(branch: Any, prefix: str) -> list[Any]:
    import onnx

    renamed = []
    for item in branch.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(item)
        copy.name = f"{prefix}/{item.name}"
        renamed.append(copy)
    return renamed


def simplified(model: Any) -> Any:
    """Return the model with constants folded; as it is where the simplifier fails."""
    import onnx
    import onnxsim

    try:
        smaller, _ = onnxsim.simplify(model)
    except RuntimeError as error:  # what its C++ code raises
        sys.stderr.write(f"onnxsim: {gist(error)}\n")
        return onnx.shape_inference.infer_shapes(model)
    return smaller


def unknown_operators(model: Any) -> dict[str, int]:
    """Return {operator: how many} of those that onnx2tf does not know."""
    from onnx2tf.tflite_builder.op_registry import get_supported_onnx_ops

    known = {*get_supported_onnx_ops(), "Constant"}
    counts: dict[str, int] = {}
    for node in all_nodes(model.graph):
        if node.op_type not in known:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            counts[name] = counts.get(name, 0) + 1
    return counts


def all_nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            for inner in [*([item.g] if item.HasField("g") else []), *item.graphs]:
                yield from all_nodes(inner)


def _refusals(folder: Path) -> str:
    """Return what onnx2tf's report says about the operators that it cannot lower; empty for nothing."""
    reports = sorted(folder.glob("*_op_coverage_report.json"))
    if not reports:
        return ""
    nodes = json.loads(reports[0].read_text(encoding="utf-8")).get("unsupported_nodes") or []
    kinds = {str(node.get("onnx_op")): str(node.get("message") or node.get("reason_code")) for node in nodes}
    return "; ".join(f"{kind}: {' '.join(why.split())}" for kind, why in sorted(kinds.items()))[:200]


def session(model: Any, *, optimized: bool = True) -> Any:
    """Return ONNX Runtime's session of a path or of bytes, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runnable(path: str) -> str | bytes:
    """Return the file, or the model's bytes without sizes of 0 and -1, which ONNX Runtime takes literally."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    opened = False
    for item in [*model.graph.input, *model.graph.output]:
        for size in item.type.tensor_type.shape.dim:
            if size.HasField("dim_value") and size.dim_value < 1:
                size.Clear()
                opened = True
    if not opened:
        return path
    onnx.load_external_data_for_model(model, str(Path(path).parent))
    content: bytes = model.SerializeToString()
    return content


def gist(error: BaseException) -> str:
    """Return an exception as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


class Server:
    """Answers requests about one model after another; the session of the last one stays open."""

    def __init__(self) -> None:
        self._session: tuple[str, Any] | None = None

    def answer(self, request: Mapping[str, Any]) -> Any:
        """Return the result of one request."""
        arguments = {key: value for key, value in request.items() if key != "do"}
        if request["do"] == "describe":
            return describe(**arguments)
        return convert(**arguments) if request["do"] == "convert" else self.run(**arguments)

    def run(self, path: str, arrays: str, results: str) -> int:
        """Run the model on the arrays of a .npz by input names, and write its outputs in order."""
        try:
            if self._session is None or self._session[0] != path:
                self._session = (path, session(runnable(path)))
            with np.load(arrays) as stored:
                outputs = self._session[1].run(None, dict(stored))
        except Exception as error:
            raise Refused("run", gist(error)) from error
        np.savez(results, **{f"output_{i}": array for i, array in enumerate(outputs)})
        return len(outputs)


def main() -> None:
    """Answer the requests of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the libraries print at will
    server = Server()
    for line in sys.stdin:
        try:
            body = {"result": server.answer(json.loads(line))}
        except Refused as error:
            body = {"error": {"kind": error.kind, "text": str(error)}}
        answers.write(json.dumps(body) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
