"""Rules for attention layers, whose heads are channels, and for products of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq_converters.training.common.keras_graph import Call
from edgeq_converters.training.pruning.channels import Channels, Labels
from edgeq_converters.training.pruning.tracer import Tracer, Unprunable, require_weights
from edgeq_converters.training.pruning.weight_rules import Flow, Rule

HEADS = "heads"
"""What the heads of an attention layer are called behind its name."""
_PROJECTIONS = tuple(
    f"{part}/{name}"
    for part in ("query", "key", "value", "gate", "attention_output")
    for name in ("kernel", "bias")
)


def _operand(call: Call, position: int, name: str) -> int | None:
    """Return which input of the call is this argument; None where it was left out."""
    arguments = call.node.arguments
    value = arguments.kwargs.get(name)
    if value is None and position < len(arguments.args):
        value = arguments.args[position]
    if value is None:
        return None
    return next((i for i, symbol in enumerate(call.inputs) if symbol is value), None)


def _attention_inputs(trace: Tracer, call: Call, inputs: Flow) -> dict[str, Channels]:
    """Return the channels that query, key and value read; those of masks are fixed."""
    places = {name: _operand(call, position, name) for position, name in enumerate(("query", "value", "key"))}
    if places["query"] is None or places["value"] is None:
        raise Unprunable("its query or its value is a constant")
    if places["key"] is None:
        places["key"] = places["value"]
    read = {name: place for name, place in places.items() if place is not None}
    operands = {id(call.inputs[place]) for place in read.values()}
    for symbol, labels in zip(call.inputs, inputs, strict=True):
        if id(symbol) not in operands:
            trace.fix(labels, call, "it is a mask")
    return {name: trace.read(inputs[place], call, place) for name, place in read.items()}


def multi_head_attention(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a MultiHeadAttention: heads go whole, and the output is a projection of its own."""
    require_weights(call, *_PROJECTIONS)
    layer, config = call.operation, call.operation.get_config()
    if config["output_shape"] and len(tuple(config["output_shape"])) > 1:
        raise Unprunable("its output has several axes")
    read = _attention_inputs(trace, call, inputs)
    heads = trace.channels.new(int(layer.num_heads))
    _projections(trace, call, read, {name: heads for name in ("query", "key", "value", "gate")})
    trace.resize(call, "num_heads", lambda count: count(heads), heads)
    made = trace.channels.new(int(call.outputs[0].shape[-1]))
    _output(trace, call, heads, made, unit=f"{call.name} output")
    # Without an output shape of its own the layer's output would become as wide as its pruned query.
    trace.resize(call, "output_shape", lambda count: (count(made),), made, read["query"])
    return _outputs(call, made, heads)


def grouped_query_attention(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a GroupedQueryAttention: a head of keys and values goes with its heads of queries."""
    require_weights(call, *_PROJECTIONS)
    layer = call.operation
    read = _attention_inputs(trace, call, inputs)
    heads = trace.channels.new(int(layer.num_key_value_heads))
    queries = np.repeat(heads, int(layer.num_query_heads) // len(heads))
    _projections(trace, call, read, {"query": queries, "gate": queries, "key": heads, "value": heads})
    trace.resize(call, "num_key_value_heads", lambda count: count(heads), heads)
    trace.resize(call, "num_query_heads", lambda count: count(queries), queries)
    _output(trace, call, queries, read["query"], unit=None)  # its output is as wide as its query
    return _outputs(call, read["query"], queries)


def _projections(trace: Tracer, call: Call, read: dict[str, Channels], made: dict[str, Channels]) -> None:
    for name, heads in made.items():
        trace.cut(call, f"{name}/kernel", 0, read["query" if name == "gate" else name], reads=True)
        trace.cut(call, f"{name}/kernel", 1, heads, unit=f"{call.name} {HEADS}")
        trace.cut(call, f"{name}/bias", 0, heads)


def _output(trace: Tracer, call: Call, heads: Channels, made: Channels, *, unit: str | None) -> None:
    trace.cut(call, "attention_output/kernel", 0, heads, reads=True)
    trace.cut(call, "attention_output/kernel", 2, made, unit=unit)
    trace.cut(call, "attention_output/bias", 0, made)


def _outputs(call: Call, made: Channels, heads: Channels) -> Flow:
    outputs: Flow = [Labels(axis=len(call.outputs[0].shape) - 1, channels=made)]
    return outputs + [Labels(axis=1, channels=heads) for _ in call.outputs[1:]]  # attention scores


def einsum_dense(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow an EinsumDense: what it sums over, and the first axis that only the kernel has."""
    require_weights(call, "kernel", "bias")
    layer = call.operation
    left, kernel, out = _letters(layer.equation, [len(call.inputs[0].shape)])
    labels = inputs[0]
    summed = [letter for letter in left if letter in kernel and letter not in out]
    shared = [letter for letter in kernel if letter in left and letter in out]
    new = [letter for letter in kernel if letter not in left]
    if shared or len(summed) + len(new) != len(kernel) or not new:
        raise Unprunable(f"its equation {layer.equation} is not a projection")
    passes = labels is not None and left[labels.axis] not in kernel
    if passes and labels is not None and left[labels.axis] not in out:
        raise Unprunable(f"its equation {layer.equation} sums over the channels")
    letter = left[labels.axis] if labels is not None and not passes else summed[0] if summed else None
    if letter is not None:
        read = trace.read(None if passes else labels, call, 0, left.index(letter))
        trace.cut(call, "kernel", kernel.index(letter), read, reads=True)
    made = trace.channels.new(int(layer.kernel.shape[kernel.index(new[0])]))
    if passes:  # one axis of a tensor is followed
        trace.channels.fix(made, f"{call.name} passes channels of another axis on")
    trace.cut(call, "kernel", kernel.index(new[0]), made, unit=call.name)
    bias = layer.bias_axes or ""
    if new[0] in bias:
        trace.cut(call, "bias", out.index(new[0]) - min(out.index(axis) for axis in bias), made)
    place = out.index(new[0])
    partial = layer.partial_output_shape
    sizes = tuple(partial) if isinstance(partial, (list, tuple)) else (partial,)
    at = place - len(out) + len(sizes)
    trace.resize(
        call,
        "output_shape",
        lambda count: tuple(count(made) if i == at else size for i, size in enumerate(sizes)),
        made,
    )
    after = trace.activated(call, made, place)
    if passes and labels is not None:
        return [Labels(axis=out.index(left[labels.axis]), channels=labels.channels)]
    return [after]


def _letters(equation: str, ranks: Sequence[int]) -> tuple[str, str, str]:
    """Return the letters of input, second operand and output of an equation without its blanks."""
    terms, arrow, out = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    if not arrow or len(parts) != 2 or "." in equation or len(parts[0]) != ranks[0]:
        raise Unprunable(f"its equation {equation} is not followed")
    if any(len(set(part)) != len(part) for part in (*parts, out)):
        raise Unprunable(f"its equation {equation} repeats a letter")
    return parts[0], parts[1], out


def matmul(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a product of two tensors of one rank."""
    if len(inputs) != 2 or len(call.inputs[0].shape) != len(call.inputs[1].shape):
        raise Unprunable("its operands differ in rank, or one is a constant")
    rank = len(call.inputs[0].shape)
    batch = "".join(chr(ord("a") + i) for i in range(rank - 2))
    return _product(trace, call, inputs, (batch + "xy", batch + "yz", batch + "xz"))


def einsum(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow an einsum of two tensors."""
    if len(inputs) != 2:
        raise Unprunable("it does not have two operands")
    return _product(trace, call, inputs, _letters(call.operation.subscripts, [len(call.inputs[0].shape)]))


def attention(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a dot-product Attention: it sums over the channels of query and key and passes the value on."""
    layer, rank = call.operation, len(call.inputs[0].shape)
    if layer.score_mode != "dot" or len(call.outputs) != 1 or not 2 <= len(inputs) <= 3 or rank != 3:
        raise Unprunable("only a dot product of queries, values and keys is followed")
    query, value = trace.read(inputs[0], call, 0), trace.read(inputs[1], call, 1)
    trace.channels.tie(query, trace.read(inputs[2], call, 2) if len(inputs) == 3 else value)
    return [Labels(axis=2, channels=value)]


def _product(trace: Tracer, call: Call, inputs: Flow, letters: tuple[str, str, str]) -> Flow:
    *operands, out = letters
    at: list[str | None] = [
        None if labels is None else operand[labels.axis]
        for labels, operand in zip(inputs, operands, strict=True)
    ]
    passed: Flow = []
    for number, (labels, letter) in enumerate(zip(inputs, at, strict=True)):
        if labels is None or letter is None:
            continue
        other = 1 - number
        if letter in operands[other]:
            size = call.inputs[other].shape[operands[other].index(letter)]
            partner = inputs[other]
            if size == len(labels.channels):
                if partner is None or at[other] != letter:
                    trace.fix(labels, call, "the other operand's channels stay")
                    continue
                trace.channels.tie(labels.channels, partner.channels)
            elif size != 1 or letter not in out:
                trace.fix(labels, call, "the other operand's channels stay")
                continue
        elif letter not in out:
            trace.fix(labels, call, "it sums over them")
            continue
        if letter in out:
            passed.append(Labels(axis=out.index(letter), channels=labels.channels))
    if len({labels.axis for labels in passed if labels is not None}) > 1:
        trace.fix(passed[1], call, "one axis of a tensor is followed")
    return [passed[0] if passed else None]


RULES: dict[str, Rule] = {
    "MultiHeadAttention": multi_head_attention,
    "GroupedQueryAttention": grouped_query_attention,
    "EinsumDense": einsum_dense,
    "Attention": attention,
    "Matmul": matmul,
    "Einsum": einsum,
}
"""{class of Keras: its rule}"""
