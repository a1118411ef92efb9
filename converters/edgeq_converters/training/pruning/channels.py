"""Channel pruning of a whole model: what flows where, what matters least, and the cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channel_choice import choose, kept
from edgeq_converters.training.pruning.channel_flow import SOURCES, follow
from edgeq_converters.training.pruning.importance import importance
from edgeq_converters.training.pruning.surgery import cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A model with fewer channels.

    Attributes:
        layers: {layer: (channels before, channels after)} of the layers that make channels and lost some.
        left: {layer: why its channels stayed}.
    """

    model: Any
    layers: dict[str, tuple[int, int]]
    left: dict[str, str]


def prune(model: Any, ratio: float, *, subject: str) -> Cut:
    """Return the model without the least important `ratio` of each group of channels.

    Raises:
        ConverterError: EQ316 when no channel can go.
    """
    flow = follow(model)
    makers = [
        call.name for call in keras_graph.calls(model) if call.kind in SOURCES and call.name in flow.gives
    ]
    makers = list(dict.fromkeys(makers))
    gone = choose(flow, makers, importance(model, flow, makers), ratio)
    layers = {name: (len(flow.gives[name]), len(kept(flow, flow.gives[name], gone))) for name in makers}
    layers = {name: sizes for name, sizes in layers.items() if sizes[0] != sizes[1]}
    if not layers:
        raise nothing_to_prune(subject, flow.left)
    return Cut(model=cut(model, flow, gone), layers=layers, left=flow.left)


def nothing_to_prune(subject: str, left: dict[str, str]) -> ConverterError:
    """Return the error for a model in which nothing can go."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:3])
    return ConverterError(
        "EQ316",
        subject,
        f"nothing in the model can be pruned ({reasons or 'it has no convolution and no dense layer'})",
        hint="leave --prune out",
    )
