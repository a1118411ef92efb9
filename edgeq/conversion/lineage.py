"""Lineage: the source, data, recipe, tools and machine that a model file was made with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeq.files import sha256_of
from edgeq.version import VERSION
from edgeq_agent import wire

SCHEMA = "edgeq.lineage/1"


def entry(path: Path, *, given: bool = True) -> dict[str, Any]:
    """Return {path, sha256, size_bytes} of a file or folder.

    A folder's digest is that of its sorted relative paths with the digests of their files.

    Args:
        given: whether the path is the user's; a temporary path of ours is left out.
    """
    if path.is_file():
        digest, size = sha256_of(path), path.stat().st_size
    else:
        files = sorted(item for item in path.rglob("*") if item.is_file())
        names = {item.relative_to(path).as_posix(): sha256_of(item) for item in files}
        digest, size = wire.digest(names), sum(item.stat().st_size for item in files)
    return {"path": str(path.resolve()) if given else None, "sha256": digest, "size_bytes": size}


def made_of(source: Path, data: Mapping[str, Path | None], *, lasting: bool) -> dict[str, Any]:
    """Return {"source", "data"}: the digests of a conversion's inputs, taken before it starts.

    Args:
        data: by name, for example `calibration`; None is left out.
        lasting: whether the calibration is a file of the user and not arrays given in Python.
    """
    return {
        "source": entry(source),
        "data": {
            name: entry(path, given=lasting or name != "calibration")
            for name, path in data.items()
            if path is not None and path.exists()
        },
    }


def lineage(
    inputs: Mapping[str, Any],
    *,
    recipe: Mapping[str, Any],
    tools: Mapping[str, str],
    backend: str,
    output: Path,
) -> dict[str, Any]:
    """Return the lineage of a written file as `edgeq.lineage/1`.

    Args:
        recipe: a document with `schema` and `seed`, of a conversion or of a tuning.
    """
    return {
        "schema": SCHEMA,
        "output": entry(output),
        **inputs,
        "recipe": dict(recipe),
        "recipe_sha256": wire.digest(dict(recipe)),
        "seed": recipe["seed"],
        "backend": backend,
        "tools": {"edgeq": VERSION, **tools},
        "environment": environment(trained="training" in inputs["data"]),
    }


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
    """Yield every lineage in a stored record, at any depth."""
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
