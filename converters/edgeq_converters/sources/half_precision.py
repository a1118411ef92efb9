"""Widen a TensorFlow function that computes in float16 or bfloat16 to float32, which .tflite kernels need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

TYPES = frozenset({"float16", "bfloat16"})
_SUFFIX = "constant"
NOTE = "the source computes in half precision; the .tflite computes the same in float32"


def is_used(tf: Any, concrete: Any) -> bool:
    """Return whether a function has a tensor in half precision, also inside the functions that it calls."""
    halves = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}
    return any(_types(node).intersection(halves) for node in _nodes(concrete.graph.as_graph_def()))


def widened(tf: Any, concrete: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the function with its variables as constants and every half-precision tensor in float32.

    Args:
        inputs: names of the arguments, in order.
        outputs: names of the results, in order.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    order = sorted(range(len(outputs)), key=lambda index: outputs[index])
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    definition = frozen.graph.as_graph_def()
    _rename_functions(definition)
    for node in _nodes(definition):
        _widen_node(tf, node)
    for function in definition.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.type = _wide(tf, argument.type)
    feeds = [tensor.name for tensor in frozen.inputs]
    fetches = [tensor.name for tensor in frozen.outputs]  # sorted by name, as TensorFlow flattens
    specs = [
        tf.TensorSpec(tensor.shape, tf.float32 if tensor.dtype.name in TYPES else tensor.dtype, name=name)
        for tensor, name in zip(frozen.inputs, inputs, strict=True)
    ]

    def call(*tensors: Any) -> dict[str, Any]:
        results = tf.graph_util.import_graph_def(
            definition, input_map=dict(zip(feeds, tensors, strict=True)), return_elements=fetches, name=""
        )
        by_name = {outputs[index]: result for index, result in zip(order, results, strict=True)}
        return {name: by_name[name] for name in outputs}

    return tf.function(call, autograph=False).get_concrete_function(*specs)


def _rename_functions(definition: Any) -> None:
    # TensorFlow knows the functions of the source under their names, and refuses others under the same.
    names = {
        function.signature.name: f"{function.signature.name}_{_SUFFIX}"
        for function in definition.library.function
    }
    for function in definition.library.function:
        function.signature.name = names[function.signature.name]
    for node in _nodes(definition):
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name = names[called.name]


def _nodes(definition: Any) -> Iterator[Any]:
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _types(node: Any) -> set[int]:
    types: set[int] = set()
    for value in node.attr.values():
        types.add(value.type)
        types.update(value.list.type)
        if value.HasField("tensor"):
            types.add(value.tensor.dtype)
    return types


def _wide(tf: Any, number: int) -> int:
    kind = tf.dtypes.as_dtype(number) if number else None
    return int(tf.float32.as_datatype_enum) if kind is not None and kind.name in TYPES else number


def _widen_node(tf: Any, node: Any) -> None:
    for value in node.attr.values():
        if value.HasField("type"):
            value.type = _wide(tf, value.type)
        elif value.HasField("list") and value.list.type:
            value.list.type[:] = [_wide(tf, number) for number in value.list.type]
        elif value.HasField("tensor") and tf.dtypes.as_dtype(value.tensor.dtype).name in TYPES:
            wide = np.asarray(tf.make_ndarray(value.tensor)).astype(np.float32)
            value.tensor.CopyFrom(tf.make_tensor_proto(wide))
