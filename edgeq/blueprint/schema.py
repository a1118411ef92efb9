"""The JSON Schema of blueprint.toml (draft 2020-12), with which editors complete and check the file.

It is generated from `edgeq.blueprint.document` and kept beside this module. After a change of a key:
`python -m edgeq.blueprint.schema`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from edgeq.blueprint.document import Document
from edgeq.files import write_atomic
from edgeq.values import DeviceKind

PATH = Path(__file__).with_name("blueprint.schema.json")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class _WithoutNull(GenerateJsonSchema):
    """TOML has no null: a key that may be None in Python is a key that may be left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        # A title that only repeats the key, in other letters, hides it in an editor.
        return False


def generated() -> dict[str, Any]:
    """Return the schema that the tables of `document` have now."""
    body = Document.model_json_schema(schema_generator=_WithoutNull)
    kinds = body["properties"]["device"]
    # Editors complete `properties`; few of them complete `propertyNames`.
    kinds.pop("propertyNames", None)
    kinds["properties"] = {kind.value: kinds["additionalProperties"] for kind in DeviceKind}
    kinds["additionalProperties"] = False
    return {"$schema": _DRAFT, **body, "title": "edgeq blueprint"}


def text() -> str:
    """Return the schema as it is shipped: the JSON text of `generated`."""
    return json.dumps(generated(), indent=2, sort_keys=True) + "\n"


def shipped() -> str:
    """Return the shipped schema; unlike `text` it loads nothing that generates one."""
    return PATH.read_text(encoding="utf-8")


if __name__ == "__main__":
    write_atomic(PATH, text().encode())
