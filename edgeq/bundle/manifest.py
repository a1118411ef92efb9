"""The manifest of a bundle: its files, its devices and its limits; its digest is the release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from edgeq.errors import BundleError
from edgeq_agent import wire

T = TypeVar("T")

# JSON has lists only; a frozen value holds a tuple.
Items = Annotated[tuple[T, ...], Strict(False)]
LARGEST_BYTES = 2**48
LARGEST_LIMIT = 2**62
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Part(BaseModel):
    # A later version may add fields; unknown ones are ignored. Strict, as on the device: "1" is not a number.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class FileEntry(_Part):
    """One file of the bundle."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=LARGEST_BYTES)]


class GoldenRuntime(_Part):
    """The runtime that computed the golden outputs; on others they hold within a tolerance."""

    module: str
    version: str
    machine: str


class Golden(_Part):
    """Golden samples and the tolerance of a device: steps for integers, atol + rtol for floats."""

    file: str
    samples: Annotated[int, Field(ge=1, le=LARGEST_BYTES)]
    max_steps: Annotated[int, Field(ge=0, le=2**31)]
    atol: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rtol: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    runtime: GoldenRuntime


class FileOf(_Part):
    """A reference to a file of the bundle."""

    file: str


class ProvenanceFiles(_Part):
    """The files of the bundle that say what its model was made of."""

    sbom: str
    statement: str


class Requires(_Part):
    """What a device must be and have; an empty list of kinds or of device ids means any."""

    kinds: Items[str] = ()
    devices: Items[str] = ()
    free_bytes: Annotated[int, Field(ge=0, le=LARGEST_BYTES)] = 0


class DeviceLimits(_Part):
    """Limits that must hold on the device; None for no limit."""

    latency_p95_ns: Annotated[int, Field(gt=0, le=LARGEST_LIMIT)] | None = None
    memory_peak_bytes: Annotated[int, Field(gt=0, le=LARGEST_LIMIT)] | None = None


class Manifest(_Part):
    """A bundle's manifest, parsed."""

    # pydantic's BaseModel has a method `schema`; the alias keeps the name on the wire.
    schema_name: Annotated[Literal["edgeq.manifest/1"], Field(alias="schema")]
    model: ModelName
    variant: str
    created_by: str
    # 0 for a manifest from before releases had counters; devices do not accept it.
    counter: Annotated[int, Field(ge=0, le=wire.LARGEST_COUNTER)] = 0
    files: Mapping[str, FileEntry]
    golden: Golden
    reference: FileOf
    # The model for devices without the Edge TPU that `model.tflite` was compiled for.
    fallback: FileOf | None = None
    requires: Requires
    limits: DeviceLimits
    labels: Items[str] = ()
    lineage: Mapping[str, Any] = {}
    provenance: ProvenanceFiles | None = None


def parse_manifest(document: object, *, subject: str) -> Manifest:
    """Parse and check a manifest.

    Raises:
        BundleError: it does not follow the schema, or a file name is invalid or missing.
    """
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BundleError(
            subject,
            f"manifest: `{where}`: {fault['msg']}",
            hint="create the bundle again with `edgeq bundle MODEL -o FILE`; "
            "a newer edgeq may have written this one",
        ) from error
    # A file's name becomes a path on the device; it must not lead out of the release's folder.
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name):
            raise BundleError(
                subject, "manifest: a file name", expected="letters, digits and ._-", got=repr(name)
            )
    provenance = manifest.provenance
    others = [] if manifest.fallback is None else [manifest.fallback.file]
    others += [] if provenance is None else [provenance.sbom, provenance.statement]
    for needed in ("model.tflite", manifest.golden.file, manifest.reference.file, *others):
        if needed not in manifest.files:
            raise BundleError(subject, f"manifest: `{needed}` is not among its files")
    return manifest


def release_of(document: Mapping[str, Any]) -> str:
    """Return the release id: the digest of the manifest."""
    return wire.digest(dict(document))
