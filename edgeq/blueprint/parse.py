"""Parse blueprint.toml; an error names the key, its line and the nearest known key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeq.blueprint.document import (
    BudgetTable,
    DataTable,
    DeviceTable,
    Document,
    ModelTable,
    RequireTable,
    SliceTable,
    Table,
    TaskTable,
    TechniquesTable,
    VariantsTable,
)
from edgeq.blueprint.key_lines import lines_of_keys
from edgeq.blueprint.model import Blueprint, Budget, Technique
from edgeq.errors import BlueprintError
from edgeq.files import exists
from edgeq_agent import wire

HINT = "see docs/blueprint.md, then run `edgeq check {path}`"


def load_blueprint(path: Path) -> Blueprint:
    """Read a blueprint; its file names are relative to its own folder.

    Raises:
        BlueprintError: it cannot be read, has an unknown key or an invalid value, or names a missing file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BlueprintError(str(path), problem, hint="name a blueprint.toml") from error
    return parse_blueprint(text, path)


def parse_blueprint(text: str, path: Path) -> Blueprint:
    """Return the blueprint that a text states.

    Args:
        path: the file of the text, for messages; file names in the text are relative to its folder.

    Raises:
        BlueprintError: it has an unknown key or an invalid value, or names a missing file.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BlueprintError(str(path), f"not valid TOML: {error}", hint=HINT.format(path=path)) from error
    try:
        document = Document.model_validate(raw)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    blueprint = _blueprint(document, raw, path.parent)
    _check_files(path, text, blueprint)
    return blueprint


def _blueprint(document: Document, raw: Mapping[str, Any], folder: Path) -> Blueprint:
    data, budget = document.data, document.budget
    return Blueprint(
        name=document.name,
        source=folder / document.model.source,
        calibration=None if data.calibration is None else folder / data.calibration,
        evaluation=folder / data.evaluation,
        training=None if data.training is None else folder / data.training,
        validation=None if data.validation is None else folder / data.validation,
        schemes=tuple(dict.fromkeys(document.variants.schemes)),
        io=document.variants.io,
        labels=document.model.labels,
        limits=document.require.limits(raw.get("require", {})),
        device_limits={
            kind: table.limits(raw["device"][kind.value]) for kind, table in document.device.items()
        },
        device_schemes={
            kind: table.schemes for kind, table in document.device.items() if table.schemes is not None
        },
        task=None if document.task is None else document.task.kind,
        techniques=tuple(each for each in Technique if each in document.techniques.allow),
        effort=document.techniques.effort,
        epochs=document.techniques.epochs,
        budget=Budget(seconds=None if budget.time is None else budget.time / 1e9, seed=budget.seed),
        slices=tuple(each.slice() for each in document.slices),
        prefer=tuple(dict.fromkeys(document.prefer)),
        # What is not stated is left out: keys that a later version adds do not change the digest.
        digest=wire.digest(document.model_dump(mode="json", exclude_unset=True)),
    )


def _check_files(path: Path, text: str, blueprint: Blueprint) -> None:
    calibrated = [scheme.value for scheme in blueprint.schemes if scheme.needs_ranges]
    if blueprint.calibration is None and calibrated:
        raise BlueprintError(
            f"{path}: data.calibration",
            expected=f"calibration data for the scheme {calibrated[0]}",
            got="none",
            hint='add calibration = "calibration.npz" under [data]',
        )
    named = {
        ("model", "source"): blueprint.source,
        ("data", "evaluation"): blueprint.evaluation,
        ("data", "calibration"): blueprint.calibration,
        ("data", "training"): blueprint.training,
        ("data", "validation"): blueprint.validation,
    }
    for keys, file in named.items():
        if file is not None and not exists(file):
            where = _at(path, text, keys)
            raise BlueprintError(where, expected="a file that exists", got=str(file), hint="correct the path")


def _explained(path: Path, text: str, error: ValidationError) -> BlueprintError:
    """Return the first fault as a BlueprintError with file, line, key, expected and got, and nearest key."""
    faults = error.errors()
    # Report an unknown key first: it is often the misspelling of a missing one.
    first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    keys = tuple(str(part) for part in first["loc"] if part != "[key]")
    dotted = ".".join(keys)
    where = _at(path, text, keys)
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(keys[-1], _known_keys(keys[:-1]), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(_known_keys(keys[:-1]))}"
        return BlueprintError(where, f"unknown key `{dotted}`{more}", hint=hint)
    if first["type"] == "missing":
        return BlueprintError(where, f"`{dotted}` is missing{more}", hint=HINT.format(path=path))
    message = first["msg"].removeprefix("Value error, ")
    value = "" if message.startswith("expected") else f", got {first['input']!r}"
    return BlueprintError(where, f"`{dotted}`: {message}{value}{more}", hint=HINT.format(path=path))


def _known_keys(keys: tuple[str, ...]) -> list[str]:
    tables: dict[str, type[Table]] = {
        "model": ModelTable,
        "data": DataTable,
        "variants": VariantsTable,
        "require": RequireTable,
        "device": DeviceTable,
        "task": TaskTable,
        "techniques": TechniquesTable,
        "budget": BudgetTable,
        "slices": SliceTable,
    }
    table = tables.get(keys[0], Document) if keys else Document
    return list(table.model_fields)


def _at(path: Path, text: str, keys: tuple[str, ...]) -> str:
    """Return `file:line` of a key, else of the nearest table or key above it, or the file alone.

    Args:
        keys: from the top of the document; the tables of an array are numbered from 0.
    """
    lines = lines_of_keys(text)
    while keys:
        if keys in lines:
            return f"{path}:{lines[keys]}"
        keys = keys[:-1]
    return str(path)
