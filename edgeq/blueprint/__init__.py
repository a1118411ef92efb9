"""The blueprint: a model, its data, and the limits that every variant must meet."""

from __future__ import annotations

from edgeq.blueprint.conditions import Condition, Operator, parse_condition
from edgeq.blueprint.model import Blueprint, Budget, Limits, Preference, Scheme, Slice, Task, Technique
from edgeq.blueprint.parse import load_blueprint, parse_blueprint

__all__ = [
    "Blueprint",
    "Budget",
    "Condition",
    "Limits",
    "Operator",
    "Preference",
    "Scheme",
    "Slice",
    "Task",
    "Technique",
    "load_blueprint",
    "parse_blueprint",
    "parse_condition",
]
