"""Kernel tables as JSON, and those that come with edgeq."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgeq.errors import StoreError
from edgeq_converters.kernels import KernelTable

SCHEMA = "edgeq.kernels/1"
_ADAPTER = TypeAdapter(KernelTable)


def to_json(table: KernelTable) -> dict[str, Any]:
    """Return a table as a document `edgeq.kernels/1`."""
    return {"schema": SCHEMA, **asdict(table), "rows": [asdict(row) for row in table.rows]}


def from_json(body: Mapping[str, Any], *, subject: str) -> KernelTable:
    """Return the table that `to_json` wrote.

    Raises:
        StoreError: a field is missing or has another type.
    """
    known = {key: value for key, value in body.items() if key in KernelTable.__dataclass_fields__}
    try:
        return _ADAPTER.validate_python(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            subject,
            f"the kernel table is damaged: {place}: {first['msg']}",
            hint="run `edgeq devices kernels` again",
        ) from error


@cache
def shipped_tables() -> tuple[KernelTable, ...]:
    """Return the tables that come with edgeq, the preferred one of each class of machines first."""
    text = files("edgeq.kernels").joinpath("tables.json").read_text(encoding="utf-8")
    return tuple(from_json(each, subject="tables.json") for each in json.loads(text)["tables"])
