"""Provenance of a release: a CycloneDX SBOM and an in-toto statement, two files that the manifest names.

They hold digests, names of files without their folders, the recipe, and versions; no time and no path, so
that the same inputs give the same bytes. The release's signature covers both through the manifest.
"""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from edgeq.conversion.lineage import FileRecord, Lineage
from edgeq.version import VERSION
from edgeq_agent import wire

SBOM_FILE = "sbom.cdx.json"
STATEMENT_FILE = "provenance.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:edgeq:build:tflite:1"
_SPEC = "1.6"
_BUILDER = "urn:edgeq:builder"
_MODELS = ("source", "compiled-from")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgeq:sbom")
# Of the files of an installed library, those that its wheel has: the others depend on the installation.
_OF_THE_INSTALLATION = re.compile(
    r"\.dist-info/(?:RECORD|INSTALLER|REQUESTED|direct_url\.json)$|__pycache__|^\.\./"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A file that a model was made from, or tested with."""

    role: str
    name: str
    sha256: str

    @property
    def ref(self) -> str:
        """Its reference inside the SBOM."""
        return f"{self.role}:{self.sha256[:16]}"


def provenance_files(
    *,
    model: str,
    variant: str,
    digests: Mapping[str, str],
    data: FileRecord,
    blueprint: str | None,
    made_from: Sequence[Lineage],
    compiled_from: FileRecord | None = None,
) -> dict[str, bytes]:
    """Return the two documents of a release, by file name.

    Args:
        digests: SHA-256 of the bundle's other files by name, `model.tflite` among them.
        data: what the golden samples and the drift reference are from.
        blueprint: digest of the blueprint, if there is one.
        made_from: the lineage of the model, that of its source, and so on; empty where it is not recorded.
        compiled_from: what a model for an Edge TPU was compiled from; `made_from` then begins with it.
    """
    materials = _materials(data, blueprint, made_from, compiled_from)
    tools = _tools(made_from)
    sbom = _sbom(model, variant, digests["model.tflite"], materials, tools)
    statement = _statement(digests, materials, tools, made_from)
    return {SBOM_FILE: wire.canonical(sbom), STATEMENT_FILE: wire.canonical(statement)}


def _materials(
    data: FileRecord,
    blueprint: str | None,
    made_from: Sequence[Lineage],
    compiled_from: FileRecord | None,
) -> list[Material]:
    def of(role: str, record: FileRecord) -> Material:
        name = PurePath(record.path).name if record.path else "arrays given in Python"
        return Material(role=role, name=name, sha256=record.sha256)

    materials = [of("golden-data", data)]
    if blueprint is not None:
        materials.append(Material(role="blueprint", name="blueprint", sha256=blueprint))
    if compiled_from is not None:
        materials.append(of("compiled-from", compiled_from))
    for link in made_from:
        materials.append(of("source", link.source))
        materials += [of(role, record) for role, record in sorted(link.data.items())]
        if link.chosen_by is not None:
            materials.append(of("evaluation", link.chosen_by.evaluation))
    return list({material.ref: material for material in materials}.values())


def _tools(made_from: Sequence[Lineage]) -> dict[str, str]:
    """Return the versions of the libraries; those of the last step win."""
    tools = {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")}
    for link in reversed(made_from):
        tools.update(link.tools)
    return {**tools, "edgeq": VERSION}


def _sbom(
    model: str, variant: str, sha256: str, materials: Sequence[Material], tools: Mapping[str, str]
) -> dict[str, Any]:
    main = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model,
        "version": sha256[:12],
        "hashes": _hashes(sha256),
        "properties": [{"name": "edgeq:variant", "value": variant}],
    }
    libraries = [_library(name, version) for name, version in sorted(tools.items()) if name != "edgeq"]
    components = [*map(_component, materials), *libraries]
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgeq", "version": VERSION}]},
            "component": main,
        },
        "components": components,
        "dependencies": [{"ref": "model", "dependsOn": sorted(each["bom-ref"] for each in components)}],
    }
    return {**body, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, wire.digest(body))}"}


def _component(material: Material) -> dict[str, Any]:
    kind = "machine-learning-model" if material.role in _MODELS else "data"
    body: dict[str, Any] = {
        "type": kind,
        "bom-ref": material.ref,
        "name": material.name,
        "hashes": _hashes(material.sha256),
        "properties": [{"name": "edgeq:role", "value": material.role}],
    }
    if kind == "data":
        content = "configuration" if material.role == "blueprint" else "dataset"
        body["data"] = [{"type": content, "name": material.name}]
    return body


def _library(name: str, version: str) -> dict[str, Any]:
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{quote(canonical)}@{quote(version, safe='')}"
    body = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    digest = _installed_digest(name, version)
    properties = [{"name": "edgeq:files-sha256", "value": digest}] if digest else []
    return {**body, "properties": properties} if properties else body


def _installed_digest(name: str, version: str) -> str | None:
    """Return a digest over the files of an installed library, as its wheel lists them, or None."""
    try:
        installed = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    record = installed.read_text("RECORD")
    if installed.version != version or not record:
        return None
    lines = [
        line for line in record.splitlines() if "sha256=" in line and not _OF_THE_INSTALLATION.search(line)
    ]
    return wire.digest({"files": sorted(lines)}) if lines else None


def _statement(
    digests: Mapping[str, str],
    materials: Sequence[Material],
    tools: Mapping[str, str],
    made_from: Sequence[Lineage],
) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(digests.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"steps": [_step(link) for link in reversed(made_from)]},
                "internalParameters": {
                    "environments": [dict(link.environment) for link in reversed(made_from)]
                },
                "resolvedDependencies": [
                    {
                        "name": f"{material.role}/{material.name}",
                        "digest": {"sha256": material.sha256},
                        "annotations": {"role": material.role},
                    }
                    for material in materials
                ],
            },
            "runDetails": {"builder": {"id": _BUILDER, "version": dict(sorted(tools.items()))}},
        },
    }


def _step(link: Lineage) -> dict[str, Any]:
    return {
        "output_sha256": link.output.sha256,
        "source_sha256": link.source.sha256,
        "backend": link.backend,
        "recipe": _plain(link.recipe),
        "recipe_sha256": link.recipe_sha256,
    }


def _plain(value: Any) -> Any:
    # A recipe holds the shapes of inputs as tuples.
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def materials_of(statement: Mapping[str, Any]) -> Iterable[Material]:
    """Yield the materials of a statement that `edgeq.bundle.provenance_check` accepted."""
    for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        role, _, name = each["name"].partition("/")
        yield Material(role=role, name=name, sha256=each["digest"]["sha256"])
