"""Make a bundle: the model, golden samples that a device must reproduce, and the drift reference."""

from __future__ import annotations

import importlib.metadata
import io
import platform
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blueprint import Limits, Task
from edgeq.bundle.archive import EPOCH, Bundle, entry_of, write_bundle
from edgeq.bundle.counters import CounterRule
from edgeq.bundle.keys import SigningKey
from edgeq.bundle.provenance import SBOM_FILE, STATEMENT_FILE, provenance_files
from edgeq.bundle.reference import build_reference
from edgeq.conversion.lineage import Lineage, file_record
from edgeq.conversion.recorded_lineage import chain_of, lineages_by_digest
from edgeq.errors import BundleError
from edgeq.evaluation import ModelRun, dequantized, run
from edgeq.evaluation.evaluation import judged
from edgeq.store import UNRECORDED, Recorder, Store, recording_store
from edgeq.values import DeviceKind, Metrics
from edgeq.version import VERSION
from edgeq_agent import wire
from edgeq_converters.metrics import useless_result

GOLDEN_SAMPLES = 16
# How far integer outputs may differ on another runtime, other kernels or another processor, in steps of the
# output's scale. Between LiteRT 2.3.0 and tflite-runtime 2.11 on Python 3.7, a keyword spotter's softmax
# differed by up to 14 steps; broken kernels differ by far more. On the runtime and machine of the golden
# outputs, integers must be equal.
GOLDEN_STEPS = 16
GOLDEN_ATOL = 1e-3
GOLDEN_RTOL = 1e-2


CPU_FILE = "model-cpu.tflite"


def usual_kinds(*, is_compiled: bool, with_cpu: bool) -> tuple[DeviceKind, ...]:
    """Return the kinds of devices of a bundle by default: Coral for a model that needs an Edge TPU."""
    return (DeviceKind.CORAL,) if is_compiled and not with_cpu else ()


def make_bundle(
    path: Path,
    *,
    model_file: Path,
    name: str,
    variant: str,
    data: Path,
    golden_from: Path | None = None,
    with_cpu: bool = False,
    sequence: bool = False,
    task: Task | None = None,
    labels: Sequence[str] = (),
    kinds: Sequence[DeviceKind] = (),
    devices: Sequence[str] = (),
    limits: Limits | None = None,
    golden_samples: int = GOLDEN_SAMPLES,
    golden_steps: int = GOLDEN_STEPS,
    golden_atol: float = GOLDEN_ATOL,
    lineage: Mapping[str, Any] | None = None,
    made_from: Sequence[Lineage] | None = None,
    counter: int | CounterRule = 1,
    keys: Sequence[SigningKey] = (),
    strict: bool = False,
    on_warning: Callable[[str], None] | None = None,
    store: Recorder | None = None,
    workspace: Path | None = None,
) -> Bundle:
    """Write a bundle, record its release, and return it; the same arguments give the same bytes.

    Args:
        path: the .eqb file to write.
        model_file: the .tflite model; one that was compiled for the Edge TPU needs `golden_from`.
        name: the name under which devices serve it.
        variant: what the model is, such as `int8`.
        data: samples that the model was not trained on and that represent normal input in the field. Golden
            samples are taken from them at even distances.
        golden_from: the .tflite that the model was compiled from. Its outputs on the CPU are the golden
            ones, and the bundle is for Coral devices unless `kinds` or `with_cpu` say otherwise.
        with_cpu: add `golden_from` to the bundle; it serves where no Edge TPU is.
        sequence: the samples follow each other, so that a model that keeps state is not reset between them;
            this matters for the drift reference. Each golden sample is independent in any case.
        task: of another one than classification, `y` of the data may be numbers of any type and shape.
        labels: names of the classes, in order.
        kinds: the kinds of devices that it is for; empty means any.
        devices: the ids of the devices that it is for; empty means any.
        limits: latency and memory that must hold on the device; other limits are ignored.
        golden_samples: the number of golden samples.
        golden_steps: how far integer outputs may differ, in steps of the output's scale.
        golden_atol: how far float outputs may differ, besides one percent of their value.
        lineage: digests of what the model was made from.
        made_from: how the model was made, how its source was made, and so on, for the SBOM and the
            provenance; None is what the store has recorded.
        counter: of the release, or the rule that returns it; a device accepts only higher counters than it
            has committed.
        strict: EQ334 for a model that is useless on the data, in place of a warning.
        on_warning: called with each warning about the model.
        keys: sign it with these; a device accepts only releases with a trusted signature.
        store: where the release and the run are recorded: None is the store of `workspace`, `UNRECORDED`
            keeps no record.
        workspace: the default workspace if None.

    Raises:
        DataError, ModelError: the data or the model cannot be used.
        BundleError: there are too few samples, or the name is invalid.
        StoreError: the store cannot be opened.
    """
    if with_cpu and golden_from is None:
        raise BundleError("with_cpu", "needs the model for the CPU", expected="golden_from", got="none")
    runs_here = model_file if golden_from is None else golden_from
    compiled = None if golden_from is None else model_file
    in_classes = task in (None, Task.CLASSIFICATION)
    ran = run(runs_here, data, sequence=sequence, compiled=compiled, any_labels=not in_classes)
    outputs = dequantized(ran.outputs, ran.info.outputs)
    count = len(ran.inputs[0])
    figures = Metrics(
        samples=count, useless=useless_result(outputs, None, ran.labels if in_classes else None)
    )
    useless = judged(runs_here, figures, strict=strict)
    if useless is not None and on_warning is not None:
        on_warning(useless)
    if labels and len(labels) != _classes(outputs[0]):
        raise BundleError("labels", expected=f"{_classes(outputs[0])}, one a class", got=str(len(labels)))
    chosen = np.unique(np.linspace(0, count - 1, min(golden_samples, count)).astype(int))
    reference = build_reference(_named_inputs(ran), outputs[0])
    files = {
        "model.tflite": model_file.read_bytes(),
        "golden.npz": _npz(_golden(runs_here, ran, chosen)),
        "reference.json": wire.canonical(reference.to_json()),
    }
    if with_cpu:
        files[CPU_FILE] = runs_here.read_bytes()
    digests = {file: entry_of(content)["sha256"] for file, content in files.items()}
    converted = file_record(runs_here)
    if made_from is None:
        made_from = _recorded(converted.sha256, store, workspace)
    files |= provenance_files(
        model=name,
        variant=variant,
        digests=digests,
        data=file_record(data),
        blueprint=(lineage or {}).get("blueprint"),
        compiled_from=None if golden_from is None else converted,
        made_from=made_from,
    )
    device_limits = limits or Limits()
    manifest: dict[str, Any] = {
        "schema": wire.MANIFEST_SCHEMA,
        "model": name,
        "variant": variant,
        "created_by": f"edgeq {VERSION}",
        "files": {file: entry_of(content) for file, content in sorted(files.items())},
        "golden": {
            "file": "golden.npz",
            "samples": len(chosen),
            "max_steps": golden_steps,
            "atol": golden_atol,
            "rtol": GOLDEN_RTOL,
            "runtime": {
                "module": "ai_edge_litert",
                "version": importlib.metadata.version("ai-edge-litert"),
                "machine": platform.machine(),
                # The TPU rounds in its own way: its outputs hold within the tolerance.
                **({} if compiled is None else {"kernels": "xnnpack"}),
            },
        },
        "reference": {"file": "reference.json"},
        **({"fallback": {"file": CPU_FILE}} if with_cpu else {}),
        "requires": {
            "kinds": [
                kind.value
                for kind in kinds or usual_kinds(is_compiled=compiled is not None, with_cpu=with_cpu)
            ],
            "free_bytes": sum(map(len, files.values())),
            **({"devices": sorted(set(devices))} if devices else {}),
        },
        "limits": {
            "latency_p95_ns": device_limits.latency_p95_ns_max,
            "memory_peak_bytes": device_limits.memory_peak_bytes_max,
        },
        "labels": list(labels),
        "lineage": dict(lineage or {}),
        "provenance": {"sbom": SBOM_FILE, "statement": STATEMENT_FILE},
    }
    manifest["counter"] = counter if isinstance(counter, int) else counter(manifest)
    bundle = write_bundle(path, manifest, files, keys=keys)
    with recording_store(store, workspace) as records:
        records.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
        records.record_run("bundle", name, {"release": bundle.release, "path": str(path)})
    return bundle


def _recorded(sha256: str, store: Recorder | None, workspace: Path | None) -> list[Lineage]:
    """Return the lineages of a model that the store has; none without a store."""
    if store is UNRECORDED:
        return []
    with recording_store(store, workspace) as records:
        return chain_of(lineages_by_digest(records), sha256) if isinstance(records, Store) else []


def _classes(output: NDArray[Any]) -> int:
    return int(np.prod(output.shape[1:]))


def _named_inputs(ran: ModelRun) -> dict[str, NDArray[np.float64]]:
    # Quantized and back, as the model sees them, so that rounding is the same here and on the device.
    values = dequantized(ran.inputs, ran.info.inputs)
    return {tensor.name: array for tensor, array in zip(ran.info.inputs, values, strict=True)}


def _golden(model_file: Path, ran: ModelRun, chosen: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    """Return the arrays `input_<i>` and `output_<i>`, samples first, in the model's own types.

    The device resets the state of a model before each golden sample, so that these samples never are a
    sequence.
    """
    inputs = [array[chosen] for array in ran.inputs]
    outputs = [array[chosen] for array in ran.outputs]
    if ran.sequences is not None and ran.sequences < len(ran.inputs[0]):
        outputs = list(run(model_file, inputs).outputs)
    arrays = {f"input_{i}": array for i, array in enumerate(inputs)}
    return arrays | {f"output_{i}": array for i, array in enumerate(outputs)}


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an .npz whose bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    # numpy.savez writes the time into the zip; written this way, the bytes depend only on the content.
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[key]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", date_time=EPOCH), member.getvalue())
    return buffer.getvalue()
