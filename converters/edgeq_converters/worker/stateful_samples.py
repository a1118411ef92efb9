"""Samples for a model that carries a state: sequences in order, with the states of the float model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import Samples, require_single_steps
from edgeq_converters.data.sequences import gives_states, match_sequences
from edgeq_converters.graph import carried_states
from edgeq_converters.graph.interpreter import with_recorded_states
from edgeq_converters.graph.model import Model
from edgeq_converters.values import Caution


def matched(
    raw: RawSamples, model: Model, *, initial: Mapping[int, Any] | None = None
) -> tuple[Samples, list[str]]:
    """Return (the samples for a float model, remarks on its states).

    Where the samples are sequences, the states that the model passes on in them are recorded.

    Args:
        initial: the values that states without an array begin with, by position of the input.

    Raises:
        ConverterError: EQ2xx the data does not fit, EQ303 the model does not run.
    """
    states = [state.input for state in carried_states.read(model)]
    samples = match_sequences(raw, model.inputs, states=states, initial=initial)
    require_single_steps(samples, keeps_state=bool(states), subject=raw.subject)
    if samples.begins is None and states and not gives_states(raw, model.inputs, states):
        named = ", ".join(f"`{model.inputs[place].name}`" for place in states)
        return samples, [
            Caution(
                f"{raw.subject}: every sample begins with the first value of {named}, because nothing says"
                " which samples follow each other: give arrays of shape (sequences, steps, ...) or"
                " `sequence_id`"
            )
        ]
    return with_recorded_states(model, samples), []
