"""The JSON Schema of the blueprint: what is shipped, what it accepts, and the table of docs/blueprint.md."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edgeq.blueprint.schema import generated, shipped, text
from edgeq.errors import EdgeqError
from edgeq.units import parse_duration, parse_energy, parse_size
from edgeq.values import DeviceKind

LEAST = """\
schema_version = 1
name = "m"
[model]
source = "m.keras"
[data]
evaluation = "e.npz"
"""
ROW = re.compile(r"^\| `(?P<key>[\w.]+)` \| (?P<default>[^|]+) \| (?P<meaning>[^|]+) \|$", re.M)
# Tables that take the limits of another one: the page lists these once.
LIMITS_OF = {"device.KIND": "require", "slices": "require"}


def problems(document: str, schema: str | None = None) -> list[str]:
    validator = Draft202012Validator(json.loads(schema or shipped()))
    return [error.json_path for error in validator.iter_errors(tomllib.loads(document))]


def resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to; its own description and default win."""
    inner = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {**inner, **node}


def keys(
    schema: Mapping[str, Any], node: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, bool]]:
    """Yield (dotted key, its schema, whether it is required); KIND stands for each kind of device."""
    for name, raw in node["properties"].items():
        inner = resolved(schema, raw)
        if name in set(DeviceKind):
            name = "KIND"
        dotted = f"{path}.{name}".strip(".")
        of_table = resolved(schema, inner.get("items", {})) if inner.get("type") == "array" else inner
        if "properties" in of_table:
            yield from keys(schema, of_table, dotted)
        else:
            yield dotted, inner, name in node.get("required", ())


def documented() -> dict[str, tuple[str, str]]:
    """Return {key: (default, meaning)} as the page must have them."""
    schema = generated()
    rows = {}
    for key, node, required in keys(schema, schema):
        table, _, name = key.rpartition(".")
        if table in LIMITS_OF and name in schema["$defs"]["RequireTable"]["properties"]:
            continue
        default = (
            "required" if required else f"`{json.dumps(node['default'])}`" if "default" in node else "none"
        )
        rows[key] = (default, node["description"])
    return rows


def test_what_is_shipped_is_what_the_code_generates() -> None:
    assert shipped() == text(), "run `python -m edgeq.blueprint.schema`"
    Draft202012Validator.check_schema(generated())


def test_every_key_has_a_description() -> None:
    schema = generated()
    assert [key for key, node, _ in keys(schema, schema) if not node.get("description")] == []
    assert {"require.energy_max", "slices.where", "device.KIND.schemes", "budget.seed"} <= {
        key for key, _, _ in keys(schema, schema)
    }


def test_the_page_lists_every_key(project_root: Path) -> None:
    page = (project_root / "docs" / "blueprint.md").read_text(encoding="utf-8")
    rows = {match["key"]: (match["default"], match["meaning"]) for match in ROW.finditer(page)}
    assert rows == documented()


def blueprints(project_root: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, TOML) of the blueprints in pages, in examples and in the demo."""
    for page in sorted((project_root / "docs").glob("*.md")):
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            if "schema_version" in block:
                yield page.name, block
    sources = [
        *sorted((project_root / "examples").rglob("*.py")),
        project_root / "edgeq" / "demo" / "folder.py",
    ]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and "schema_version = 1\n" in str(node.value):
                yield source.name, str(node.value)
    for path in sorted((project_root / "examples").rglob("*.toml")):
        if "schema_version" in (content := path.read_text(encoding="utf-8")):
            yield path.name, content


def test_the_examples_fit_the_schema(project_root: Path) -> None:
    examples = list(blueprints(project_root))
    assert {"blueprint.md", "folder.py"} <= {where for where, _ in examples}
    assert {where: problems(content) for where, content in examples if problems(content)} == {}


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("[variantz]\n", "$"),
        ("[require]\nsise_max = '1 MB'\n", "$.require"),
        ("[require]\nsize_max = '1 parsec'\n", "$.require.size_max"),
        ("[require]\nlatency_p95_max = 5\n", "$.require.latency_p95_max"),
        ("[require]\nece_max = 1.5\n", "$.require.ece_max"),
        ("[variants]\nschemes = ['int9']\n", "$.variants.schemes[0]"),
        ("[variants]\nschemes = []\n", "$.variants.schemes"),
        ("[device.toaster]\n", "$.device"),
        ("[device.linux]\nschemes = []\n", "$.device.linux.schemes"),
        ("[task]\n", "$.task"),
        ("[[slices]]\nname = 'Night'\nwhere = 'night'\n", "$.slices[0].name"),
        ("[techniques]\nallow = ['magic']\n", "$.techniques.allow[0]"),
        ("[budget]\nseed = -1\n", "$.budget.seed"),
    ],
)
def test_a_fault_is_seen_at_its_place(more: str, path: str) -> None:
    assert problems(LEAST) == []
    assert problems(LEAST + more) == [path]


@pytest.mark.parametrize(
    ("key", "parse"),
    [("size_max", parse_size), ("latency_p95_max", parse_duration), ("energy_max", parse_energy)],
)
@pytest.mark.parametrize(
    "quantity",
    ["5 ms", "64 KiB", "1.5mb", "2 mJ", " 3 s ", "7", "-1 ms", "1e3 B", "0.5 uj", "3 minutes", "ms", "1. s"],
)
def test_the_patterns_accept_what_the_parser_accepts(key: str, parse: Any, quantity: str) -> None:
    try:
        parse(quantity)
    except EdgeqError:
        accepted = False
    else:
        accepted = True
    fault = problems(f"{LEAST}[require]\n{key} = '{quantity}'\n")
    assert fault == ([] if accepted else [f"$.require.{key}"])
