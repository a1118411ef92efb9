"""Reads a release's manifest: what it needs, which file is what; checked before any write."""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls import request
from edgeq_agent.errors import DIGEST_MISMATCH, AgentError
from edgeq_agent.wire import Json


class Manifest(NamedTuple):
    """A checked manifest; `body` is the whole of it."""

    body: Json
    release: str
    model: str
    files: dict[str, tuple[str, int]]  # name -> (sha256, size_bytes)
    model_file: str
    golden_file: str
    golden: Json  # what the check compares with: max_steps, atol, rtol, runtime
    reference_file: str | None
    kinds: list[str]
    free_bytes: int
    latency_p95_ns: int | None
    memory_peak_bytes: int | None
    counter: int  # of the release; 0 where it was made before releases had one


def parse(body: Json, release: str) -> Manifest:
    """Return the manifest of a release.

    Raises:
        AgentError: EQ505, the release is not the manifest's digest; EQ512, a field is not what it must be.
    """
    if body.get("schema") != wire.MANIFEST_SCHEMA:
        raise request.bad("manifest.schema", wire.MANIFEST_SCHEMA, body.get("schema"))
    actual = wire.digest(body)
    if actual != release:
        raise AgentError(
            DIGEST_MISMATCH,
            "release " + release[:12],
            "its id is not the manifest's digest",
            expected=release,
            got=actual,
            hint="make the bundle again",
        )
    files = _files(body)
    golden = body.get("golden")
    if not isinstance(golden, dict):
        raise request.bad("manifest.golden", "an object", golden)
    reference = body.get("reference")
    requires = _part(body, "requires")
    limits = _part(body, "limits")
    return Manifest(
        body=body,
        release=release,
        model=request.model_name(body),
        files=files,
        model_file=_model_file(files),
        golden_file=_member(golden, "golden", files),
        golden=_golden(golden),
        reference_file=_member(reference, "reference", files) if isinstance(reference, dict) else None,
        kinds=_kinds(requires.get("kinds") or []),
        free_bytes=request.integer(requires, "free_bytes", 0, 1 << 48, default=0),
        latency_p95_ns=_limit(limits, "latency_p95_ns"),
        memory_peak_bytes=_limit(limits, "memory_peak_bytes"),
        counter=request.integer(body, "counter", 1, wire.LARGEST_COUNTER, default=0),
    )


def _part(body: Json, field: str) -> Json:
    return request.mapping(body, field) if body.get(field) is not None else {}


def _files(body: Json) -> dict[str, tuple[str, int]]:
    found = {}
    for name, entry in request.mapping(body, "files").items():
        request.file_name(name, "manifest.files")
        if not isinstance(entry, dict):
            raise request.bad("manifest.files." + name, "{sha256, size_bytes}", entry)
        size_bytes = request.integer(entry, "size_bytes", 0, 1 << 48)
        found[name] = (request.sha256(entry, "sha256"), size_bytes)
    return found


def _model_file(files: dict[str, tuple[str, int]]) -> str:
    models = [name for name in sorted(files) if name.endswith(".tflite")]
    if "model.tflite" in models:
        return "model.tflite"
    if len(models) != 1:
        raise request.bad("manifest.files", "one model, model.tflite", models)
    return models[0]


def _member(part: Json, field: str, files: dict[str, tuple[str, int]]) -> str:
    name = part.get("file")
    if name not in files:
        raise request.bad(f"manifest.{field}.file", "one of " + ", ".join(sorted(files)), name)
    return str(name)


def _golden(part: Json) -> Json:
    made = part.get("runtime") or {}
    if not isinstance(made, dict):
        raise request.bad("manifest.golden.runtime", "an object", made)
    known = ("module", "version", "machine", "kernels")
    return {
        "max_steps": request.integer(part, "max_steps", 0, 1 << 31, default=0),
        "atol": request.number(part, "atol", 0.0),
        "rtol": request.number(part, "rtol", 0.0),
        "runtime": {name: str(made[name])[:200] for name in known if made.get(name) is not None},
    }


def _kinds(value: Any) -> list[str]:
    if not isinstance(value, list) or any(not isinstance(kind, str) for kind in value):
        raise request.bad("manifest.requires.kinds", "a list of device kinds", value)
    return value


def _limit(limits: Json, field: str) -> int | None:
    if limits.get(field) is None:
        return None
    return int(request.seconds(limits, field, 1.0, high=float(1 << 62)))
