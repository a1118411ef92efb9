"""Training with fake quantization as edgeq's users call it: a tuned model and its recipe, both or neither."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.conversion.families import ERRORS, Progress
from edgeq.conversion.lineage import lineage, made_of
from edgeq.conversion.outputs import check_paths, require_writable, unwritable
from edgeq.conversion.tuning import check_epochs, check_trainable
from edgeq.errors import UsageError
from edgeq.files import sha256_of, write_atomic
from edgeq_converters.errors import translated
from edgeq_converters.recipe import Recipe
from edgeq_converters.worker.client import run_worker

SCHEMES = ("int8", "int4")
SCHEMA = "edgeq.tuning/1"
"""Of what decides a tuning, as its lineage has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A tuned model that was written, and the recipe beside it that makes its integer file.

    Attributes:
        recipe_path: give it to `edgeq convert --recipe`; holds the learned ranges.
        epochs: how many were trained.
        best_epoch: the epoch whose weights were the best, on training samples spared for this choice.
        kept: `qat`, or `ptq` where training brought nothing: `path` then holds the source itself, and the
            recipe is that of a plain conversion.
        began: from what training began, in words.
        tensors: how many activations have learned ranges.
        accuracy: top-1 on held-out samples: `float` before, `tuned` as a float model, `ptq` and `qat` as
            integer files of the model before and after; each None without labels.
        agreement: share of held-out samples on which `ptq` and `qat` choose the float model's class.
        samples: how many were held out; neither training nor the choice of the epoch saw them.
        lineage: what the file was made of, as `edgeq.lineage/1`.
    """

    path: Path
    sha256: str
    recipe_path: Path
    recipe: Recipe
    epochs: int
    best_epoch: int
    kept: str
    began: str
    tensors: int
    accuracy: Mapping[str, float | None]
    agreement: Mapping[str, float | None]
    samples: int
    seconds: float
    tools: Mapping[str, str]
    notes: tuple[str, ...]
    lineage: Mapping[str, Any]


def tune(
    source: Path,
    output: Path,
    *,
    training: Path | None,
    validation: Path | None = None,
    scheme: str = "int8",
    epochs: int | None = None,
    distill: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
    deadline_s: float = 6 * 3600.0,
) -> Tuned:
    """Train a Keras 3 model with fake quantization and write it to `output`, its recipe beside it.

    The same source, data and seed give the same files. Nothing is written unless everything succeeded.

    Args:
        source: a .keras file with a Functional or Sequential model.
        output: a .keras file; the recipe is written to the same name with `.recipe.json`.
        training: a .npz with `x` and `y` (docs/data.md).
        validation: the same kind of file, to measure on; a fifth of the training data is held out otherwise.
        scheme: `int8`, or `int4` for weights of four bits where the runtime runs them.
        epochs: their number follows from the size of the data otherwise.
        distill: train towards the float model's own outputs, which needs no labels.

    Raises:
        UsageError: an unknown scheme, epochs below one, an output that is no .keras or is the source.
        MissingExtra: TensorFlow is not installed.
        DataError: EQ2xx, the training or validation data.
        ModelError: EQ3xx, the model or its training.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    if scheme not in SCHEMES:
        raise UsageError("--scheme", expected=f"one of {', '.join(SCHEMES)}", got=repr(scheme))
    check_epochs(epochs)
    if output.suffix != ".keras":
        raise UsageError(str(output), expected="a name that ends with .keras", got=output.name)
    check_paths(source, output)
    recipe_path = output.with_suffix(".recipe.json")
    with (
        translated(ERRORS),
        tempfile.TemporaryDirectory(prefix="edgeq-tune-", ignore_cleanup_errors=True) as folder,
    ):
        workdir = Path(folder)
        check_trainable(source, training, what="edgeq tune")
        require_writable(output)
        made = workdir / "tuned.keras"
        inputs = made_of(source, {"training": training, "validation": validation}, lasting=True)
        asked = {"scheme": scheme, "epochs": epochs, "distill": distill, "seed": seed}
        result = run_worker(
            {
                "verb": "tune",
                "source": str(source),
                "output": str(made),
                "workdir": str(workdir),
                "training": str(training) if training else None,
                "validation": str(validation) if validation else None,
                **asked,
            },
            workdir=workdir,
            subject=str(source),
            deadline_s=deadline_s,
            on_progress=on_progress,
        )
        report = result["report"]
        _write(output, made.read_bytes(), recipe_path, report["recipe"])
    return Tuned(
        path=output,
        sha256=sha256_of(output),
        recipe_path=recipe_path,
        recipe=Recipe.from_dict(report["recipe"]),
        epochs=report["epochs"],
        best_epoch=report["best_epoch"],
        kept=report["kept"],
        began=report["began"],
        tensors=report["tensors"],
        accuracy=report["accuracy"],
        agreement=report["agreement"],
        samples=report["samples"],
        seconds=time.monotonic() - started_s,
        tools=result["tools"],
        notes=tuple(report["notes"]),
        lineage=lineage(
            inputs,
            recipe={"schema": SCHEMA, **asked},
            tools=result["tools"],
            backend="keras",
            output=output,
        ),
    )


def _write(output: Path, model: bytes, recipe_path: Path, recipe: Mapping[str, Any]) -> None:
    try:
        # The recipe first: without the model beside it, it does no harm.
        write_atomic(recipe_path, (json.dumps(recipe, indent=1) + "\n").encode())
        write_atomic(output, model)
    except OSError as error:
        raise unwritable(output, error.strerror or str(error)) from error
