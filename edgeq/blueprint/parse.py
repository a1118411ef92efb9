"""Parse blueprint.toml; an error names the key, its line and the nearest known key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgeq.blueprint.model import Blueprint, Limits, Preference, Scheme
from edgeq.errors import BlueprintError, UsageError
from edgeq.files import exists
from edgeq.units import parse_duration, parse_size
from edgeq.values import DeviceKind
from edgeq_agent import wire

HINT = "see docs/blueprint.md, then run `edgeq check {path}`"


def _size(value: object) -> int:
    return value if isinstance(value, int) else _quantity(parse_size, value)


def _duration(value: object) -> int:
    return _quantity(parse_duration, value)


def _quantity(parse: Any, value: object) -> int:
    try:
        return int(parse(str(value)))
    except UsageError as error:
        raise ValueError(f"expected {error.expected}, got {error.got}") from error


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Duration = Annotated[int, BeforeValidator(_duration), Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class _Model(_Table):
    source: Path
    labels: tuple[str, ...] = ()


class _Data(_Table):
    calibration: Path | None = None
    evaluation: Path


class _Variants(_Table):
    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)] = (Scheme.FLOAT16, Scheme.INT8)
    io: Literal["int8", "uint8", "float32"] | None = None


class _Require(_Table):
    accuracy_drop_max: Fraction | None = None
    accuracy_min: Fraction | None = None
    agreement_min: Fraction | None = None
    output_sqnr_db_min: float | None = None
    size_max: Size | None = None
    latency_p95_max: Duration | None = None
    memory_peak_max: Size | None = None

    def limits(self, raw: Mapping[str, Any]) -> Limits:
        """Return the limits; `raw` is the table as it was written."""
        quantities = {
            "size_bytes_max": "size_max",
            "latency_p95_ns_max": "latency_p95_max",
            "memory_peak_bytes_max": "memory_peak_max",
        }
        return Limits(
            accuracy_drop_max=self.accuracy_drop_max,
            accuracy_min=self.accuracy_min,
            agreement_min=self.agreement_min,
            output_sqnr_db_min=self.output_sqnr_db_min,
            size_bytes_max=self.size_max,
            latency_p95_ns_max=self.latency_p95_max,
            memory_peak_bytes_max=self.memory_peak_max,
            written={
                name: " ".join(raw[key].split())
                for name, key in quantities.items()
                if isinstance(raw.get(key), str)
            },
        )


class _Document(_Table):
    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    model: _Model
    data: _Data
    variants: _Variants = _Variants()
    require: _Require = _Require()
    device: dict[DeviceKind, _Require] = {}
    prefer: Annotated[tuple[Preference, ...], Field(min_length=1)] = (Preference.SIZE, Preference.ACCURACY)


def load_blueprint(path: Path) -> Blueprint:
    """Read a blueprint; its file names are relative to its own folder.

    Raises:
        BlueprintError: it cannot be read, has an unknown key or an invalid value, or names a missing file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BlueprintError(str(path), problem, hint="name a blueprint.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise BlueprintError(str(path), f"not valid TOML: {error}", hint=HINT.format(path=path)) from error
    try:
        document = _Document.model_validate(raw)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    blueprint = _blueprint(document, raw, path.parent)
    _check_files(path, text, blueprint)
    return blueprint


def _blueprint(document: _Document, raw: Mapping[str, Any], folder: Path) -> Blueprint:
    content = document.model_dump(mode="json")
    calibration = document.data.calibration
    return Blueprint(
        name=document.name,
        source=folder / document.model.source,
        calibration=None if calibration is None else folder / calibration,
        evaluation=folder / document.data.evaluation,
        schemes=tuple(dict.fromkeys(document.variants.schemes)),
        io=document.variants.io,
        labels=document.model.labels,
        limits=document.require.limits(raw.get("require", {})),
        device_limits={
            kind: table.limits(raw["device"][kind.value]) for kind, table in document.device.items()
        },
        prefer=tuple(dict.fromkeys(document.prefer)),
        digest=wire.digest(content),
    )


def _check_files(path: Path, text: str, blueprint: Blueprint) -> None:
    named = {"source": blueprint.source, "evaluation": blueprint.evaluation}
    if blueprint.calibration is not None:
        named["calibration"] = blueprint.calibration
    elif calibrated := [scheme.value for scheme in blueprint.schemes if scheme.needs_ranges]:
        raise BlueprintError(
            f"{path}: data.calibration",
            expected=f"calibration data for the scheme {calibrated[0]}",
            got="none",
            hint='add calibration = "calibration.npz" under [data]',
        )
    for key, file in named.items():
        if not exists(file):
            where = _at(path, text, (key,))
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
    tables: dict[str, type[_Table]] = {
        "model": _Model,
        "data": _Data,
        "variants": _Variants,
        "require": _Require,
        "device": _Require,
    }
    table = tables.get(keys[0], _Document) if keys else _Document
    return list(table.model_fields)


def _at(path: Path, text: str, keys: tuple[str, ...]) -> str:
    """Return `file:line` of the last key found in the text, or the file alone."""
    for key in reversed(keys):
        pattern = re.compile(rf"^\s*(\[.*)?\b{re.escape(key)}\b")
        for number, line in enumerate(text.splitlines(), start=1):
            if pattern.match(line):
                return f"{path}:{number}"
    return str(path)
