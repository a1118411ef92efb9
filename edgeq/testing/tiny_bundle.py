"""A tiny real bundle for tests, made without any model library: y = x + x for x of shape (1, 4)."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.bundle.archive import Bundle, write_bundle
from edgeq.bundle.keys import workspace_key

# Written field by field with the TFLite schema: float32 `x` (1, 4), one ADD, float32 `y`.
MODEL = base64.b64decode(
    "CAAAAFRGTDPK////FAAAABwAAAAgAAAABAEAAAMAAAABAAAABAAAAAT///8AAAAAAAAAAAEAAAAUAAAAAAAOABgAFAAQ"
    "AAwACAAEAA4AAAAUAAAAHAAAAFwAAABgAAAAZAAAAAQAAABtYWluAAAAAAEAAAAUAAAAAAAOABQAAAAQAAwACwAEAA4A"
    "AAAQAAAAAAAACwwAAAAQAAAAeP///wEAAAABAAAAAgAAAAAAAAAAAAAAAQAAAAEAAAABAAAAAAAAAAIAAAA0AAAABAAA"
    "AOD///8IAAAADAAAAAEAAAB5AAAAAgAAAAEAAAAEAAAADAAMAAgAAAAAAAQADAAAAAgAAAAMAAAAAQAAAHgAAAACAAAA"
    "AQAAAAQAAAABAAAACAAAAAQABAAEAAAA"
)


def write_tiny_bundle(
    path: Path,
    *,
    seed: int = 0,
    factor: float = 2.0,
    kinds: tuple[str, ...] = (),
    free_bytes: int = 0,
    padding_bytes: int = 0,
    counter: int | None = None,
    workspace: Path | None = None,
) -> Bundle:
    """Write a bundle of the model `double`, and return it; it deploys and serves like any other.

    Args:
        seed: a different one makes a different release of the same model.
        factor: the factor of the golden outputs; the model itself computes 2.
        padding_bytes: random bytes as one more file, for transfers that take a while.
        counter: of the release; else `seed` + 1, so that a later seed is a later release.
        workspace: whose key signs it; else the folder that it is written to.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(6, 4)).astype(np.float32)
    golden = io.BytesIO()
    np.savez(golden, input_0=x, output_0=(factor * x).astype(np.float32))
    edges = [-4.0, -1.0, 0.0, 1.0, 4.0]
    channels = [{"edges": edges, "counts": [2, 30, 30, 2]} for _ in range(4)]
    reference = {
        "schema": "edgeq.reference/1",
        "statistic": "per-sample per-channel mean",
        "inputs": [{"name": "x", "channels": channels}],
        "output": {
            "classes": 4,
            "predicted": [16, 16, 16, 16],
            "confidence": {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [1, 21, 21, 21]},
            "confidence_from": "logits",
        },
    }
    files = {
        "model.tflite": MODEL,
        "golden.npz": golden.getvalue(),
        "reference.json": json.dumps(reference).encode(),
    }
    if padding_bytes:
        files["padding.bin"] = random.bytes(padding_bytes)
    manifest: dict[str, Any] = {
        "schema": "edgeq.manifest/1",
        "model": "double",
        "variant": f"float32-{seed}",
        "created_by": "edgeq.testing",
        "counter": seed + 1 if counter is None else counter,
        "files": {name: {"sha256": _sha256(data), "size_bytes": len(data)} for name, data in files.items()},
        "golden": {
            "file": "golden.npz",
            "samples": 6,
            "max_steps": 1,
            "atol": 1e-5,
            "rtol": 1e-5,
            "runtime": {"module": "ai_edge_litert", "version": "2.3.0", "machine": "x86_64"},
        },
        "reference": {"file": "reference.json"},
        "requires": {"kinds": list(kinds), "free_bytes": free_bytes},
        "limits": {"latency_p95_ns": None, "memory_peak_bytes": None},
        "labels": ["a", "b", "c", "d"],
        "lineage": {},
    }
    return write_bundle(path, manifest, files, keys=[workspace_key(workspace or path.parent)])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
