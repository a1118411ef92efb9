"""The model side of the demo: train, convert, evaluate, bundle."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from edgeq.blueprint import Blueprint
from edgeq.bundle import Bundle, make_bundle
from edgeq.bundle.keys import workspace_key
from edgeq.conversion import convert
from edgeq.errors import MissingExtra, ModelError
from edgeq.files import sha256_of
from edgeq.selection import evaluate_variants
from edgeq.store import UNRECORDED
from edgeq.values import Metrics, Variant

TRAINING_DEADLINE_S = 300
NEEDED = {"sklearn": "demo", "tensorflow": "convert", "ai_edge_litert": "convert", "plotly": "dashboard"}


def check_extras() -> None:
    """Check for the required extras before the first step.

    Raises:
        MissingExtra: a package that the demo needs is not installed.
    """
    for module, extra in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(
                "edgeq demo",
                f"{module} is not installed (extra {extra})",
                hint="pip install 'edgeq[all]'",
            )


def train(folder: Path) -> Path:
    """Train the CNN in a separate process and return the `.keras` file.

    Raises:
        ModelError: the training process failed; the message has its last line and names the log.
    """
    path, log = folder / "digits.keras", folder / "training.log"
    argv = [sys.executable, "-m", "edgeq.demo.train", str(path)]
    with log.open("wb") as stream:
        done = subprocess.run(
            argv, stdout=stream, stderr=subprocess.STDOUT, timeout=TRAINING_DEADLINE_S, check=False
        )
    if done.returncode != 0 or not path.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ModelError(
            "training", f"exit status {done.returncode}: {lines[-1] if lines else ''}", hint=f"see {log}"
        )
    return path


def convert_all(folder: Path, blueprint: Blueprint) -> Mapping[str, Path]:
    """Return {scheme: written file}, float32 (the reference) first."""
    hub = folder / "float32.tflite"
    convert(blueprint.source, hub, scheme="float32", store=UNRECORDED)
    written = {"float32": hub}
    # From here on the float .tflite is the source, which needs no TensorFlow and a fraction of a second.
    for scheme in blueprint.schemes:
        path = folder / f"{scheme}.tflite"
        calibration = blueprint.calibration if scheme == "int8" else None
        convert(hub, path, scheme=scheme, calibration=calibration, store=UNRECORDED)
        written[str(scheme)] = path
    return written


def evaluate_all(files: Mapping[str, Path], blueprint: Blueprint) -> tuple[Metrics, list[Variant]]:
    """Return the float model's metrics, and the variants with theirs."""
    reference = files["float32"]
    variants = [path for path in files.values() if path != reference]
    return evaluate_variants(variants, reference=reference, blueprint=blueprint)


def bundle(folder: Path, variant: Variant, blueprint: Blueprint, *, counter: int) -> Bundle:
    """Bundle a variant next to its file, signed with the workspace's key."""
    return make_bundle(
        folder / f"{blueprint.name}-{variant.name}.eqb",
        model_file=variant.path,
        name=blueprint.name,
        variant=variant.name,
        data=blueprint.evaluation,
        labels=blueprint.labels,
        limits=blueprint.limits,
        lineage={
            "source": sha256_of(blueprint.source),
            "model": variant.sha256,
            "blueprint": blueprint.digest,
        },
        counter=counter,
        keys=[workspace_key(folder)],
        store=UNRECORDED,
    )
