"""The manifest of a bundle: what it holds, for whom, within which limits; its digest is the release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.errors import BundleError
from edgeq_agent import wire

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Part(BaseModel):
    # A later version may say more; what this one does not know it leaves alone.
    model_config = ConfigDict(extra="ignore", frozen=True)


class FileEntry(_Part):
    """One file of the bundle."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class Runtime(_Part):
    """Where golden outputs were computed; elsewhere they hold within a tolerance."""

    module: str
    version: str
    machine: str


class Golden(_Part):
    """Golden samples and how far a device may be off: steps for integers, atol + rtol for floats."""

    file: str
    samples: Annotated[int, Field(ge=1)]
    max_steps: Annotated[int, Field(ge=0)]
    atol: Annotated[float, Field(ge=0)]
    rtol: Annotated[float, Field(ge=0)]
    runtime: Runtime


class FileOf(_Part):
    """A part that is a file of the bundle."""

    file: str


class Requires(_Part):
    """What a device must be and have; an empty list of kinds is any kind."""

    kinds: tuple[str, ...] = ()
    free_bytes: Annotated[int, Field(ge=0)] = 0


class DeviceLimits(_Part):
    """What must hold on the device; None where nothing is asked."""

    latency_p95_ns: int | None = None
    memory_peak_bytes: int | None = None


class Manifest(_Part):
    """A bundle's manifest, parsed."""

    # `schema` is a method of pydantic's BaseModel; the field keeps the wire's name by its alias.
    schema_name: Annotated[Literal["edgeq.manifest/1"], Field(alias="schema")]
    model: ModelName
    variant: str
    created_by: str
    # 0 where it was made before releases had a counter; no device accepts it then.
    counter: Annotated[int, Field(strict=True, ge=0, le=wire.LARGEST_COUNTER)] = 0
    files: Mapping[str, FileEntry]
    golden: Golden
    reference: FileOf
    requires: Requires
    limits: DeviceLimits
    labels: tuple[str, ...] = ()
    lineage: Mapping[str, Any] = {}


def parse_manifest(document: object, *, subject: str) -> Manifest:
    """Return a checked manifest.

    Raises:
        BundleError: it is not of this schema, or names files that it must not or does not list.
    """
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BundleError(
            subject,
            f"manifest: `{where}`: {fault['msg']}",
            hint="make the bundle again with `edgeq bundle`; a newer edgeq may have written this one",
        ) from error
    # A file's name becomes a path on the device: nothing that could lead out of the release's folder.
    for name in manifest.files:
        if not FILE_NAME.match(name):
            raise BundleError(
                subject, "manifest: a file name", expected="letters, digits and ._-", got=repr(name)
            )
    for needed in ("model.tflite", manifest.golden.file, manifest.reference.file):
        if needed not in manifest.files:
            raise BundleError(subject, f"manifest: `{needed}` is not among its files")
    return manifest


def release_of(document: Mapping[str, Any]) -> str:
    """Return the release's id: the digest of the manifest."""
    return wire.digest(dict(document))
