"""Bundles of models for the agent, signed by the tests' publisher."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_agent import wire
from tests.agent.device import Device
from tests.agent.publisher import signature_of

RUNTIME = hashlib.sha256(b"the test's own interpreter").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A manifest and the bytes of its files."""

    manifest: dict[str, Any]
    files: dict[str, bytes]

    @property
    def release(self) -> str:
        return wire.digest(self.manifest)

    def send(self, device: Device) -> None:
        for data in self.files.values():
            device.put(data)

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the request of `activate`, signed by the tests' publisher."""
        body = {"model": self.manifest["model"], "release": self.release, "manifest": self.manifest}
        return {**body, "runtime": RUNTIME, "signatures": [signature_of(self.manifest)], **changes}


def run_here(model: Path, samples: Any) -> tuple[Any, Any]:
    """Return (inputs, outputs) of a model in its own dtypes, run on this machine."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if entry["dtype"] == np.int8:
        scale, zero = entry["quantization"]
        samples = np.clip(np.rint(samples / scale) + zero, -128, 127).astype(np.int8)
    outputs = []
    for row in range(len(samples)):
        interpreter.set_tensor(entry["index"], samples[row : row + 1])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(exit_["index"])[0])
    return samples, np.stack(outputs)


def reference_of(samples: Any, *, classes: int, channels: int) -> dict[str, Any]:
    """Return a reference of 4 bins a channel and 5 bins of confidence."""
    import numpy as np

    means = samples.reshape(len(samples), -1, channels).mean(axis=1)
    histograms = []
    for channel in range(channels):
        counts, edges = np.histogram(means[:, channel], bins=4)
        histograms.append({"edges": edges.tolist(), "counts": counts.tolist()})
    return {
        "schema": wire.REFERENCE_SCHEMA,
        "statistic": "per-sample per-channel mean",
        "inputs": [{"name": "x", "channels": histograms}],
        "output": {
            "classes": classes,
            "predicted": [0] * classes,
            "confidence": {"edges": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "counts": [0] * 5},
            "confidence_from": "probabilities",
        },
    }


def bundle_of(
    model: Path,
    samples: Any,
    reference: dict[str, Any],
    *,
    name: str,
    change: Callable[[dict[str, Any]], object] = dict,
) -> Bundle:
    """Return a bundle whose golden outputs were made on this machine; `change` edits the manifest."""
    inputs, outputs = run_here(model, samples)
    files = {
        "model.tflite": model.read_bytes(),
        "golden.npz": npz(input_0=inputs, output_0=outputs),
        "reference.json": wire.canonical(reference),
    }
    return bundle_from(files, samples=len(inputs), name=name, change=change)


def bundle_from(
    files: dict[str, bytes], *, samples: int, name: str, change: Callable[[dict[str, Any]], object] = dict
) -> Bundle:
    """Return a bundle of these files."""
    manifest: dict[str, Any] = {
        "schema": wire.MANIFEST_SCHEMA,
        "model": name,
        "variant": "int8",
        "created_by": "tests",
        "counter": 2,
        "files": {
            file: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for file, data in files.items()
        },
        "golden": {
            "file": "golden.npz",
            "samples": samples,
            "max_steps": 1,
            "atol": 1e-4,
            "rtol": 1e-3,
            "runtime": {"module": "ai_edge_litert", "version": "0", "machine": "other"},
        },
        "reference": {"file": "reference.json"},
        "requires": {"kinds": [], "free_bytes": 0},
        "limits": {"latency_p95_ns": None, "memory_peak_bytes": None},
        "labels": ["a", "b", "c"],
        "lineage": {},
    }
    change(manifest)
    return Bundle(manifest=manifest, files=files)


def total_bundle(model: bytes, outputs: Any, *, counter: int) -> Bundle:
    """Return a bundle named `total` of a model of `tests.stateful`.

    Args:
        outputs: of the model for each of `stateful.samples()` alone.
    """
    from tests import stateful

    classes = outputs.shape[1]
    reference = {"schema": wire.REFERENCE_SCHEMA, "inputs": [], "output": {"classes": classes}}
    files = {
        "model.tflite": model,
        "golden.npz": npz(input_0=stateful.samples(), output_0=outputs),
        "reference.json": wire.canonical(reference),
    }
    changes = {"labels": [str(number) for number in range(classes)], "counter": counter}
    return bundle_from(files, samples=len(outputs), name="total", change=lambda body: body.update(changes))


def npz(**arrays: Any) -> bytes:
    """Return arrays as the bytes of an .npz file."""
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
