"""Types of the blueprint's values (paths, shares, quantities, conditions) and their JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from edgeq.blueprint.conditions import Condition, parse_condition
from edgeq.errors import UsageError
from edgeq.units import (
    DURATION_PATTERN,
    ENERGY_PATTERN,
    SIZE_PATTERN,
    parse_duration,
    parse_energy,
    parse_size,
)

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def _size(value: object) -> int:
    return value if isinstance(value, int) else _quantity(parse_size, value)


def _duration(value: object) -> int:
    return _quantity(parse_duration, value)


def _energy(value: object) -> int:
    return value if isinstance(value, int) else _quantity(parse_energy, value)


def _condition(value: object) -> Condition:
    return value if isinstance(value, Condition) else parse_condition(str(value))


def _quantity(parse: Callable[[str], int], value: object) -> int:
    try:
        return int(parse(str(value)))
    except UsageError as error:
        raise ValueError(f"expected {error.expected}, got {error.got}") from error


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def _text_or_count(pattern: str) -> dict[str, Any]:
    return {"anyOf": [_text(pattern), {"type": "integer", "exclusiveMinimum": 0}]}


Name = Annotated[str, Field(pattern=NAME)]
File = Annotated[Path, WithJsonSchema({"type": "string", "minLength": 1})]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0), WithJsonSchema(_text_or_count(SIZE_PATTERN))]
Duration = Annotated[int, BeforeValidator(_duration), Field(gt=0), WithJsonSchema(_text(DURATION_PATTERN))]
Energy = Annotated[int, BeforeValidator(_energy), Field(gt=0), WithJsonSchema(_text_or_count(ENERGY_PATTERN))]
Where = Annotated[Condition, BeforeValidator(_condition), WithJsonSchema({"type": "string", "minLength": 1})]
