"""Measure what the float operations of an integer model cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import cost, tflite_file
from edgeq_converters.graph.edit import extract
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.quantization.float_parts import border_conversions
from edgeq_converters.values import FloatCost, FloatOperation
from edgeq_converters.worker.jobs import latency

_ROUNDS, _FEWEST_ROUNDS = 9, 3
_LONG_NS = 50_000_000
"""An inference from which on fewer rounds are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some operations of a model as a model of its own, with the values that they read in one inference."""

    model: Model
    rows: tuple[Any, ...]


def measure(
    model: Model, float_operations: Sequence[FloatOperation], rows: Sequence[Any], *, step: Step
) -> tuple[FloatCost | None, str]:
    """Return (the cost of the float operations, why it was not measured: empty where it was).

    The file, its float operations with the conversions around them, and its other operations are timed in
    turns, each part with the values of one inference of the file.

    Args:
        rows: one batch of inputs in the model's types.
    """
    indices = {each.index for each in float_operations}
    obstacle = cost.obstacle(model)
    if obstacle is not None:
        return None, obstacle
    inside = indices | border_conversions(model, indices)
    try:
        values = _values(model, rows)
        inner = _part(model, inside, values)
        outer = _part(model, set(range(len(model.graph.operators))) - inside, values)
    except (ConverterError, ValueError) as error:
        return None, f"its parts do not run apart ({error})"
    parts = [_Part(model=model, rows=tuple(rows)), *(part for part in (inner, outer) if part is not None)]
    began = time.perf_counter_ns()
    Interpreter(model).run(rows)
    rounds = _ROUNDS if time.perf_counter_ns() - began < _LONG_NS else _FEWEST_ROUNDS
    try:
        times = latency.gather(
            [part.model for part in parts],
            [part.rows for part in parts],
            rounds=rounds,
            seed=0,
            advance=step("measure the float operations", rounds * len(parts)),
        )
    except ConverterError as error:
        return None, f"its parts do not run apart ({error.problem})"
    medians = [[float(median(each)) for each in by_round] for by_round in times]
    return _cost(medians, has_integers=outer is not None, rounds=rounds), ""


def _cost(medians: Sequence[Sequence[float]], *, has_integers: bool, rounds: int) -> FloatCost:
    whole, inner = medians[0], medians[1]
    if not has_integers:
        return FloatCost(
            file_ns=round(median(whole)),
            float_ns=round(median(inner)),
            integer_ns=None,
            ratio=None,
            ratio_low=None,
            ratio_high=None,
            rounds=rounds,
        )
    ratios = [one / max(other, 1.0) for one, other in zip(whole, medians[2], strict=True)]
    low, middle, high = (float(value) for value in np.percentile(ratios, (25, 50, 75)))
    return FloatCost(
        file_ns=round(median(whole)),
        float_ns=round(median(inner)),
        integer_ns=round(median(medians[2])),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        rounds=rounds,
    )


def _values(model: Model, rows: Sequence[Any]) -> Interpreter:
    """Return an interpreter that holds the values of every tensor in one inference."""
    interpreter = Interpreter(model, every_tensor=True)
    interpreter.run(rows)
    return interpreter


def _part(model: Model, positions: Collection[int], values: Interpreter) -> _Part | None:
    """Return the operations at some positions of the main graph as a part; None where there are none."""
    graph = model.graph
    operators = [operator for number, operator in enumerate(graph.operators) if number in positions]
    if not operators:
        return None
    made = {index for operator in operators for index in tflite_file.index_list(operator.outputs)}
    read = dict.fromkeys(
        index
        for operator in operators
        for index in tflite_file.index_list(operator.inputs)
        if index >= 0
        and index not in made
        and not tflite_file.is_constant(model.parsed, graph.tensors[index])
    )
    outside = [operator for number, operator in enumerate(graph.operators) if number not in positions]
    needed = {index for operator in outside for index in tflite_file.index_list(operator.inputs)}
    needed.update(tflite_file.index_list(graph.outputs))
    inputs = list(read)
    part = extract(model, operators, inputs, sorted(made & needed))
    return _Part(model=part, rows=tuple(values.tensor(index) for index in inputs))
