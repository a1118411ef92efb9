"""Lineage: the source, data, recipe, tools and machine that a model file was made with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgeq.errors import StoreError
from edgeq.files import sha256_of
from edgeq.version import VERSION
from edgeq_agent import wire

SCHEMA = "edgeq.lineage/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """The digest of a file or folder.

    Attributes:
        path: None for data given as arrays in Python.
        sha256: of a folder: over its sorted relative paths with the digests of their files.
    """

    path: str | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlueprintRecord:
    """The name and digest of a blueprint."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenBy:
    """The inputs of a search that chose the file, except the measured timings.

    Attributes:
        candidates: number of candidates.
        timed_on: `host` or `device`.
    """

    blueprint: BlueprintRecord
    evaluation: FileRecord
    candidates: int
    timed_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a conversion, digested before it starts.

    Attributes:
        data: by name: `calibration`, `histograms`, `training`, `validation`.
    """

    source: FileRecord
    data: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """How a model file was made.

    Attributes:
        data: as in `Inputs`.
        recipe: the settings as a document with a `schema`, of a conversion or of a tuning.
        recipe_sha256: digest of the document.
        backend: the library that quantized or trained, `none` for float32.
        tools: {package: version}, edgeq included.
        environment: other properties of the machine that can change the last bits.
        chosen_by: the search that chose the file; None without one.
    """

    output: FileRecord
    source: FileRecord
    data: Mapping[str, FileRecord]
    recipe: Mapping[str, Any]
    recipe_sha256: str
    seed: int
    backend: str
    tools: Mapping[str, str]
    environment: Mapping[str, str]
    chosen_by: ChosenBy | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the lineage as `edgeq.lineage/1`."""
        body = {"schema": SCHEMA, **asdict(self)}
        if self.chosen_by is None:
            del body["chosen_by"]
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Lineage:
        """Read an `edgeq.lineage/1` document.

        Raises:
            StoreError: a key is missing or has another type.
        """
        try:
            return _ADAPTER.validate_python(body)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise StoreError("lineage", f"a record cannot be read: {where}: {fault['msg']}") from error


_ADAPTER = TypeAdapter(Lineage)


def file_record(path: Path, *, given: bool = True) -> FileRecord:
    """Digest a file or folder.

    Args:
        given: whether the path is the user's; the path of a temporary file is left out.
    """
    if path.is_file():
        digest, size = sha256_of(path), path.stat().st_size
    else:
        files = sorted(item for item in path.rglob("*") if item.is_file())
        names = {item.relative_to(path).as_posix(): sha256_of(item) for item in files}
        digest, size = wire.digest(names), sum(item.stat().st_size for item in files)
    return FileRecord(path=str(path.resolve()) if given else None, sha256=digest, size_bytes=size)


def digest_inputs(source: Path, data: Mapping[str, Path | None], *, lasting: bool) -> Inputs:
    """Digest a conversion's inputs before it starts.

    Args:
        data: by name, for example `calibration`; None is left out.
        lasting: whether the calibration is a file of the user and not arrays given in Python.
    """
    return Inputs(
        source=file_record(source),
        data={
            name: file_record(path, given=lasting or name != "calibration")
            for name, path in data.items()
            if path is not None and path.exists()
        },
    )


def lineage_of(
    inputs: Inputs,
    *,
    recipe: Mapping[str, Any],
    tools: Mapping[str, str],
    backend: str,
    output: Path,
) -> Lineage:
    """Return the lineage of a written file.

    Args:
        recipe: a document with `schema` and `seed`, of a conversion or of a tuning.
    """
    return Lineage(
        output=file_record(output),
        source=inputs.source,
        data=inputs.data,
        recipe=dict(recipe),
        recipe_sha256=wire.digest(dict(recipe)),
        seed=recipe["seed"],
        backend=backend,
        tools={"edgeq": VERSION, **tools},
        environment=environment(trained="training" in inputs.data),
    )


def environment(*, trained: bool) -> dict[str, str]:
    """Return the properties of this machine that can change the last bits of a result.

    Args:
        trained: whether a training took part; its sums are split over the processor's cores.
    """
    here = {"python": platform.python_version(), "machine": platform.machine(), "processor": _processor()}
    return {**here, "cores": str(_cores())} if trained else here


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: use the platform module's answer
    return platform.processor()


def lineages(body: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every lineage document in a stored record, at any depth."""
    if isinstance(body, Mapping):
        if body.get("schema") == SCHEMA:
            yield body
            return
        for value in body.values():
            yield from lineages(value)
    elif isinstance(body, list):
        for value in body:
            yield from lineages(value)


def short(digest: str) -> str:
    """Return the first 12 hex digits of a digest, for messages."""
    return digest[:12]
