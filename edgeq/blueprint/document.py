"""The tables of blueprint.toml, as pydantic models: known keys, quantities with units, ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgeq.blueprint.conditions import Condition, parse_condition
from edgeq.blueprint.model import Limits, Preference, Scheme, Slice, Task, Technique
from edgeq.errors import UsageError
from edgeq.units import limit_key, parse_duration, parse_energy, parse_size
from edgeq.values import DeviceKind
from edgeq_converters.recipe import Effort

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def _size(value: object) -> int:
    return value if isinstance(value, int) else _quantity(parse_size, value)


def _duration(value: object) -> int:
    return _quantity(parse_duration, value)


def _energy(value: object) -> int:
    return value if isinstance(value, int) else _quantity(parse_energy, value)


def _condition(value: object) -> Condition:
    return value if isinstance(value, Condition) else parse_condition(str(value))


def _quantity(parse: Any, value: object) -> int:
    try:
        return int(parse(str(value)))
    except UsageError as error:
        raise ValueError(f"expected {error.expected}, got {error.got}") from error


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Duration = Annotated[int, BeforeValidator(_duration), Field(gt=0)]
Energy = Annotated[int, BeforeValidator(_energy), Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class ModelTable(Table):
    source: Path
    labels: tuple[str, ...] = ()


class DataTable(Table):
    calibration: Path | None = None
    evaluation: Path
    training: Path | None = None
    validation: Path | None = None


class VariantsTable(Table):
    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)] = (Scheme.FLOAT16, Scheme.INT8)
    io: Literal["int8", "uint8", "float32"] | None = None


class TechniquesTable(Table):
    allow: tuple[Technique, ...] = tuple(Technique)
    effort: Effort = Effort.STANDARD
    epochs: Annotated[int, Field(ge=1)] | None = None


class BudgetTable(Table):
    time: Duration | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class SliceLimits(Table):
    accuracy_drop_max: Fraction | None = None
    accuracy_min: Fraction | None = None
    agreement_min: Fraction | None = None


class SliceTable(SliceLimits):
    name: Annotated[str, Field(pattern=NAME)]
    where: Annotated[Condition, BeforeValidator(_condition)]

    def slice(self) -> Slice:
        """Return the slice with its limits."""
        limits = Limits(
            accuracy_drop_max=self.accuracy_drop_max,
            accuracy_min=self.accuracy_min,
            agreement_min=self.agreement_min,
        )
        return Slice(name=self.name, where=self.where, limits=limits)


class RequireTable(SliceLimits):
    accuracy_drop_relative_max: Fraction | None = None
    class_drop_max: Fraction | None = None
    output_sqnr_db_min: float | None = None
    ece_max: Fraction | None = None
    robustness_drop_max: Fraction | None = None
    size_max: Size | None = None
    latency_p95_max: Duration | None = None
    memory_peak_max: Size | None = None
    energy_max: Energy | None = None

    def limits(self, raw: Mapping[str, Any]) -> Limits:
        """Return the limits; `raw` is the table as it was written."""
        keys = {entry.name: limit_key(entry.name) for entry in fields(Limits) if entry.name != "written"}
        written = {name: raw[key] for name, key in keys.items() if isinstance(raw.get(key), str)}
        values = {name: getattr(self, key) for name, key in keys.items()}
        return Limits(**values, written={name: " ".join(text.split()) for name, text in written.items()})


class DeviceTable(RequireTable):
    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)] | None = None


class TaskTable(Table):
    kind: Task


class Document(Table):
    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=NAME)]
    model: ModelTable
    data: DataTable
    variants: VariantsTable = VariantsTable()
    require: RequireTable = RequireTable()
    device: dict[DeviceKind, DeviceTable] = {}
    task: TaskTable | None = None
    techniques: TechniquesTable = TechniquesTable()
    budget: BudgetTable = BudgetTable()
    slices: tuple[SliceTable, ...] = ()
    prefer: Annotated[tuple[Preference, ...], Field(min_length=1)] = (Preference.SIZE, Preference.ACCURACY)
