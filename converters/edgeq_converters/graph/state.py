"""The state that a model keeps from one inference to the next: find it in the graph, and reset it.

A variable tensor belongs to an operation (LSTM, RNN, SVDF), and the runtime's `reset_all_variables` sets it
to zero. A resource variable is a tf.Variable (VAR_HANDLE, ASSIGN_VARIABLE), which no public function of the
runtime resets; the graph that CALL_ONCE names gives it its first value. The agent has the same rules for a
device, in `edgeq_agent.inference.state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import HasGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a model keeps between inferences.

    Attributes:
        variables: whether operations of it have variable tensors.
        resources: whether an inference assigns a resource variable.
        initializers: the graphs that give the resource variables their first values.
    """

    variables: bool
    resources: bool
    initializers: tuple[int, ...]

    @property
    def kept(self) -> bool:
        """Whether an inference can depend on earlier ones."""
        return self.variables or self.resources


def read(source: HasGraph) -> State:
    """Return the state of a model."""
    parsed = source.parsed
    initializers: list[int] = []
    assigning: set[int] = set()
    for number, graph in enumerate(parsed.subgraphs):
        for operator in graph.operators:
            name = tflite_file.op_name(parsed, operator)
            if name == "ASSIGN_VARIABLE":
                assigning.add(number)
            elif name == "CALL_ONCE":
                options = operator.builtinOptions
                initializers.append(0 if options is None else int(options.initSubgraphIndex))
    # A variable that only its initializer assigns is a constant.
    resources = bool(assigning - set(initializers))
    return State(
        variables=any(tensor.isVariable for graph in parsed.subgraphs for tensor in graph.tensors),
        resources=resources,
        initializers=tuple(dict.fromkeys(initializers)) if resources else (),
    )


def reset(runtime: Any, state: State) -> bool:
    """Give all variables of a loaded model their first values.

    Args:
        runtime: LiteRT's interpreter.

    Returns:
        False where the runtime cannot: then only loading the model again does.
    """
    if state.resources and not state.initializers:
        return False
    try:
        if state.variables:
            runtime.reset_all_variables()
        for number in state.initializers:
            inner = runtime._interpreter  # noqa: SLF001 # no public function runs another graph
            inner.AllocateTensors(number)
            inner.Invoke(number)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    return True
