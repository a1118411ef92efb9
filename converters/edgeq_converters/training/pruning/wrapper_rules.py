"""Rules for layers that hold another layer: TimeDistributed and Bidirectional.

The inner layer is followed by its own rule, as a part of the layer that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeq_converters.training.common.keras_graph import Call, Part
from edgeq_converters.training.pruning import shape_rules, weight_rules
from edgeq_converters.training.pruning.channels import Labels
from edgeq_converters.training.pruning.tracer import Tracer, Unprunable
from edgeq_converters.training.pruning.weight_rules import Flow, Rule

_INNER: Mapping[str, Rule] = {
    **weight_rules.RULES,
    **{kind: rule for kind, rule in shape_rules.RULES.items() if rule is shape_rules.pointwise},
    "Flatten": shape_rules.flatten,
}
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """A tensor of the inner layer, of which only the shape is known."""

    shape: tuple[int | None, ...]


def time_distributed(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a TimeDistributed, which calls its layer on each step along axis 1."""
    inner = call.operation.layer
    rule = _INNER.get(type(inner).__name__)
    if rule is None or not type(inner).__module__.startswith("keras."):
        raise Unprunable(f"there is no rule for {type(inner).__name__} in it")
    labels = inputs[0]
    if labels is not None and labels.axis == 1:
        trace.fix(labels, call, "it works along another axis")
        labels = None
    part = replace(
        call,
        operation=inner,
        inputs=_without_steps(call.inputs),
        outputs=_without_steps(call.outputs),
        part=Part(of=call.operation, settings="layer/config/"),
    )
    step = None if labels is None else Labels(axis=labels.axis - 1, channels=labels.channels)
    (made,) = rule(trace, part, [step])
    return [None if made is None else Labels(axis=made.axis + 1, channels=made.channels)]


def _without_steps(symbols: Sequence[Shaped]) -> tuple[Shaped, ...]:
    return tuple(Shaped(shape=(symbol.shape[0], *symbol.shape[2:])) for symbol in symbols)


def bidirectional(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a Bidirectional: two recurrent layers, whose outputs are joined or merged."""
    layer = call.operation
    directions = {
        "forward": (layer.forward_layer, "layer"),
        "backward": (layer.backward_layer, "backward_layer"),
    }
    for each, _ in directions.values():
        if type(each).__name__ not in _RECURRENT or not type(each).__module__.startswith("keras."):
            raise Unprunable(f"there is no rule for {type(each).__name__} in it")
    joined = layer.merge_mode is not None
    states = len(call.outputs) - (1 if joined else 2)
    given = (len(inputs) - 1) // 2  # initial states of each direction
    made: list[Flow] = []
    for number, (name, (inner, key)) in enumerate(directions.items()):
        places = [0, *range(1 + number * given, 1 + (number + 1) * given)]
        own = call.outputs[-states:][number * states // 2 : (number + 1) * states // 2] if states else ()
        rank = len(call.outputs[0].shape)
        output = Shaped(shape=(*(None,) * (rank - 1), int(inner.units)))
        part = replace(
            call,
            operation=inner,
            inputs=tuple(call.inputs[place] for place in places),
            outputs=(output, *own),
            part=Part(of=layer, settings=f"{key}/config/", name=name),
        )
        made.append(weight_rules.recurrent(trace, part, [inputs[place] for place in places]))
    (forward, *forward_states), (backward, *backward_states) = made
    states_after = [*forward_states, *backward_states]
    if not joined or forward is None or backward is None:
        return [forward, backward, *states_after]
    if layer.merge_mode == "concat":
        both = np.concatenate([forward.channels, backward.channels])
        return [Labels(axis=forward.axis, channels=both), *states_after]
    trace.channels.tie(forward.channels, backward.channels)
    return [forward, *states_after]


RULES: dict[str, Rule] = {"TimeDistributed": time_distributed, "Bidirectional": bidirectional}
"""{class of Keras: its rule}"""
