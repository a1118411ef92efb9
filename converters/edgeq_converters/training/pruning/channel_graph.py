"""Trace a Keras graph: which channels are coupled, and which weights and settings follow them.

Every class of layers has a rule. Channels that must stay or go together (the operands of an addition) are
tied; channels that can never go (the model's inputs and outputs, and all around a layer without a rule) are
fixed, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning import attention_rules, shape_rules, weight_rules, wrapper_rules
from edgeq_converters.training.pruning.channels import ChannelGraph, Labels
from edgeq_converters.training.pruning.tracer import Tracer, Unprunable
from edgeq_converters.training.pruning.weight_rules import Rule

RULES: Mapping[str, Rule] = {
    **shape_rules.RULES,
    **weight_rules.RULES,
    **attention_rules.RULES,
    **wrapper_rules.RULES,
}
"""{class of Keras: its rule}"""
_PRODUCTS = {"Matmul", "Einsum", "Attention", "Dot"}


def trace(model: Any) -> ChannelGraph:
    """Return the channel graph of a model without nested models.

    A reshape that splits the channels in two axes leaves a choice between them. Another axis is tried where
    no channel along the first can be removed.
    """
    heads = _split_into_heads(model)
    choices: dict[str, int] = {}
    while True:
        traced, unpruned = _trace(model, choices, heads)
        stuck = [
            name
            for name, (options, channels) in traced.splits.items()
            if choices.get(name, 0) + 1 < options
            and all(traced.channels.is_fixed(traced.channels.root(int(c))) for c in channels)
        ]
        if not stuck:
            break
        for name in stuck:
            choices[name] = choices.get(name, 0) + 1
    return ChannelGraph(
        channels=traced.channels,
        cuts=tuple(traced.cuts.values()),
        resizes={name: tuple(each.values()) for name, each in traced.resizes.items()},
        slices=traced.slices,
        unpruned=unpruned,
    )


def _trace(model: Any, choices: Mapping[str, int], heads: set[str]) -> tuple[Tracer, dict[str, str]]:
    traced = Tracer(choices, heads)
    unpruned: dict[str, str] = {}
    at: dict[int, Labels | None] = {}
    model_inputs, model_outputs = keras_graph.symbols(model)
    at.update({id(symbol): None for symbol in model_inputs})
    barred: dict[str, str] = {}
    for call in keras_graph.calls(model):
        inputs = [at[id(symbol)] for symbol in call.inputs]
        try:
            if call.name in barred:
                raise Unprunable(barred[call.name])
            outputs = _rule(call)(traced, call, inputs)
        except Unprunable as reason:
            barred[call.name] = str(reason)
            outputs = traced.bar(call, inputs, str(reason))
            if any(len(weight.shape) > 1 for weight in getattr(call.operation, "weights", ())):
                unpruned.setdefault(call.name, f"{call.kind}: {reason}")
        at.update({id(symbol): labels for symbol, labels in zip(call.outputs, outputs, strict=True)})
    for symbol in model_outputs:
        labels = at[id(symbol)]
        if labels is not None:
            traced.channels.fix(labels.channels, "its channels are an output of the model")
    return traced, unpruned


def _rule(call: keras_graph.Call) -> Rule:
    if not type(call.operation).__module__.startswith("keras."):
        raise Unprunable("it is a class of its own")
    if call.kind not in RULES:
        raise Unprunable("there is no rule for this class")
    return RULES[call.kind]


def _split_into_heads(model: Any) -> set[str]:
    """Return the reshapes whose values reach a product of two tensors before any layer with weights."""
    readers: dict[int, list[keras_graph.Call]] = {}
    calls = keras_graph.calls(model)
    for call in calls:
        for symbol in call.inputs:
            readers.setdefault(id(symbol), []).append(call)
    before_product: set[int] = set()
    heads = set()
    for call in reversed(calls):
        reaches = any(
            reader.kind in _PRODUCTS
            or (
                not getattr(reader.operation, "weights", ())
                and any(id(symbol) in before_product for symbol in reader.outputs)
            )
            for symbol in call.outputs
            for reader in readers.get(id(symbol), ())
        )
        if reaches:
            before_product.update(id(symbol) for symbol in call.outputs)
            if call.kind == "Reshape":
                heads.add(call.name)
    return heads
