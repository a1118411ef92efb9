"""A release's manifest: parse and check it before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import FILE_NAME, Fields, bad
from edgeq_agent.errors import DIGEST_MISMATCH, AgentError
from edgeq_agent.wire import Json

MODEL_FILE = "model.tflite"
# The agent writes this file of a release itself.
MANIFEST_FILE = "manifest.json"
_LARGEST_STEPS = 1 << 31
_LARGEST_LIMIT = float(1 << 62)
_RUNTIME_CHARACTERS = 200


class FileEntry(NamedTuple):
    """The content of one file of a release."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class GoldenRuntime:
    """The runtime that computed the golden outputs; None where the manifest does not say."""

    module: str | None = None
    version: str | None = None
    machine: str | None = None
    kernels: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> GoldenRuntime:
        """Return the runtime that an object describes; values that are not texts are taken as text."""

        def text(name: str) -> str | None:
            return str(fields.raw(name))[:_RUNTIME_CHARACTERS] if fields.has(name) else None

        return cls(text("module"), text("version"), text("machine"), text("kernels"))

    def matches(self, module: str, version: str, machine: str, kernels: str) -> bool:
        """Return whether this is that runtime on that processor, so that integer outputs must be equal.

        Where the manifest names the kernels they must match too: the builtin kernels round differently.
        """
        same = (self.module, self.version, self.machine) == (module, version, machine)
        return same and self.kernels in (None, kernels)


@dataclass(frozen=True)
class GoldenTolerance:
    """How far the outputs for the golden inputs may differ from the host's.

    Attributes:
        max_steps: quantization steps, for integer outputs.
        atol, rtol: for float outputs, as in `numpy.allclose`.
        runtime: under this one integer outputs must be equal.
    """

    max_steps: int
    atol: float
    rtol: float
    runtime: GoldenRuntime

    @classmethod
    def parse(cls, fields: Fields) -> GoldenTolerance:
        """Return the tolerance that a manifest's `golden` describes."""
        return cls(
            max_steps=fields.integer("max_steps", 0, _LARGEST_STEPS, default=0),
            atol=fields.number("atol", 0.0),
            rtol=fields.number("rtol", 0.0),
            runtime=GoldenRuntime.parse(fields.optional_object("runtime")),
        )


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        document: the manifest as it arrived: what is hashed, signed and stored.
        files: by name inside the release.
        cpu_file: the model that serves where the model file was compiled for an Edge TPU and none is there.
        kinds: the device kinds that it is for; empty for all.
        devices: the ids of the devices that it is for; empty for all.
        latency_p95_ns, memory_peak_bytes: limits of the health check; None where there is no limit.
        counter: the release counter; 0 for releases that were made before counters existed.
    """

    document: Json
    release: str
    model: str
    files: dict[str, FileEntry]
    model_file: str
    golden_file: str
    tolerance: GoldenTolerance
    reference_file: str | None
    cpu_file: str | None
    kinds: tuple[str, ...]
    devices: tuple[str, ...]
    free_bytes: int
    latency_p95_ns: int | None
    memory_peak_bytes: int | None
    counter: int


def parse(document: Json, release: str) -> Manifest:
    """Return the manifest of a release.

    Raises:
        AgentError: EQ505, the release's id is not the manifest's digest; EQ512, a field is not valid.
    """
    if document.get("schema") != wire.MANIFEST_SCHEMA:
        raise bad("manifest.schema", wire.MANIFEST_SCHEMA, document.get("schema"))
    digest = wire.digest(document)
    if digest != release:
        raise AgentError(
            DIGEST_MISMATCH,
            "release " + release[:12],
            "its id is not the manifest's digest",
            expected=release,
            got=digest,
            hint="make the bundle again",
        )
    fields = Fields(document, "manifest")
    files = _files(fields)
    golden = fields.object("golden")
    requires, limits = fields.optional_object("requires"), fields.optional_object("limits")
    reference = fields.object("reference") if isinstance(fields.raw("reference"), dict) else None
    fallback = fields.optional_object("fallback")
    return Manifest(
        document=document,
        release=release,
        model=fields.model_name(),
        files=files,
        model_file=_model_file(files),
        golden_file=_member(golden, files),
        tolerance=GoldenTolerance.parse(golden),
        reference_file=_member(reference, files) if reference is not None else None,
        cpu_file=_member(fallback, files) if fallback.has("file") else None,
        kinds=_texts(requires, "kinds", "a list of device kinds"),
        devices=_texts(requires, "devices", "a list of device ids"),
        free_bytes=requires.integer("free_bytes", 0, 1 << 48, default=0),
        latency_p95_ns=_limit(limits, "latency_p95_ns"),
        memory_peak_bytes=_limit(limits, "memory_peak_bytes"),
        counter=fields.integer("counter", 1, wire.LARGEST_COUNTER, default=0),
    )


def _files(fields: Fields) -> dict[str, FileEntry]:
    entries = fields.object("files")
    files = {}
    for name in entries.json():
        if not FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            raise bad("manifest.files", "a plain file name without path separators", name)
        entry = entries.object(name, "{sha256, size_bytes}")
        files[name] = FileEntry(entry.sha256("sha256"), entry.size_bytes("size_bytes"))
    return files


def _model_file(files: dict[str, FileEntry]) -> str:
    models = [name for name in sorted(files) if name.endswith(".tflite")]
    if MODEL_FILE in models:
        return MODEL_FILE
    if len(models) != 1:
        raise bad("manifest.files", "one model, " + MODEL_FILE, models)
    return models[0]


def _member(fields: Fields, files: dict[str, FileEntry]) -> str:
    return fields.one_of("file", sorted(files))


def _texts(requires: Fields, name: str, expected: str) -> tuple[str, ...]:
    # An empty list and null mean all; another value that Python takes for false must not.
    texts = requires.raw(name) if requires.has(name) else []
    if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
        raise requires.refuse(name, expected)
    return tuple(texts)


def _limit(limits: Fields, name: str) -> int | None:
    return int(limits.seconds(name, 1.0, high=_LARGEST_LIMIT)) if limits.has(name) else None
