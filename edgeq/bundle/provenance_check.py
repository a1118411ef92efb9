"""Check the provenance in a bundle: that its documents are such, and are about the files of this bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from edgeq.errors import BundleAltered, BundleError

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Strict(False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_HINT = "create it again with `edgeq bundle`"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Digest(_Part):
    sha256: Sha256


class _Named(_Part):
    name: str
    digest: _Digest


class _BuildDefinition(_Part):
    build_type: Annotated[str, Field(alias="buildType")]
    resolved: Annotated[Items[_Named], Field(alias="resolvedDependencies")] = ()


class _Builder(_Part):
    id: str
    version: Mapping[str, str] = {}


class _RunDetails(_Part):
    builder: _Builder


class _Predicate(_Part):
    build: Annotated[_BuildDefinition, Field(alias="buildDefinition")]
    run: Annotated[_RunDetails, Field(alias="runDetails")]


class _Statement(_Part):
    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Items[_Named]
    predicate_type: Annotated[Literal["https://slsa.dev/provenance/v1"], Field(alias="predicateType")]
    predicate: _Predicate


class _Hash(_Part):
    alg: str
    content: str


class _Component(_Part):
    type: str
    name: str
    hashes: Items[_Hash] = ()


class _Metadata(_Part):
    component: _Component


class _Sbom(_Part):
    form: Annotated[Literal["CycloneDX"], Field(alias="bomFormat")]
    spec: Annotated[str, Field(alias="specVersion", pattern=r"^1\.[0-9]+$")]
    metadata: _Metadata
    components: Items[_Component] = ()


K = TypeVar("K", bound=_Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The two documents of a release, as they are in the bundle.

    Attributes:
        sbom: a CycloneDX document.
        statement: an in-toto statement with SLSA provenance.
    """

    sbom: Mapping[str, Any]
    statement: Mapping[str, Any]


def parse_provenance(
    sbom: bytes, statement: bytes, *, digests: Mapping[str, str], subject: str
) -> Provenance:
    """Parse the documents of a bundle and compare them with its files.

    Args:
        digests: SHA-256 of the bundle's files by name.

    Raises:
        BundleError: a document does not follow its schema.
        BundleAltered: it is about other files.
    """
    bom_document = _document(sbom, f"{subject}: SBOM")
    document = _document(statement, f"{subject}: provenance")
    bom = _parsed(_Sbom, bom_document, f"{subject}: SBOM")
    parsed = _parsed(_Statement, document, f"{subject}: provenance")
    model = digests["model.tflite"]
    stated = {each.name: each.digest.sha256 for each in parsed.subject}
    if "model.tflite" not in stated:
        raise BundleAltered(f"{subject}: provenance", "is not about model.tflite", hint=_HINT)
    for name, sha256 in stated.items():
        if digests.get(name) != sha256:
            got = digests.get(name)
            raise BundleAltered(
                f"{subject}: provenance: {name[:80]}",
                expected=sha256[:12],
                got=got[:12] if got else "no such file",
                hint=_HINT,
            )
    if ("SHA-256", model) not in {(each.alg, each.content) for each in bom.metadata.component.hashes}:
        raise BundleAltered(f"{subject}: SBOM", "is not about model.tflite", hint=_HINT)
    return Provenance(sbom=bom_document, statement=document)


def _document(data: bytes, subject: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(subject, "is not JSON", hint=_HINT) from error
    if not isinstance(value, dict):
        raise BundleError(subject, expected="a JSON object", got=type(value).__name__, hint=_HINT)
    return value


def _parsed(kind: type[K], document: Mapping[str, Any], subject: str) -> K:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BundleError(subject, f"`{where}`: {fault['msg']}", hint=_HINT) from error
