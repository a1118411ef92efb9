"""Quantization-aware training: a tuned model and its recipe, both or neither."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.conversion.conversion import check_paths, require_writable, unwritable
from edgeq.conversion.lineage import Lineage, digest_inputs, lineage_of
from edgeq.conversion.losses import Loss, source_of
from edgeq.conversion.training import check_epochs, check_one_loss, check_tunable
from edgeq.converters_client import Progress, worker_session
from edgeq.errors import ModelError, UsageError
from edgeq.files import sha256_of, write_atomic
from edgeq.store import Recorder, recording_store
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources.detect import SourceKind, detect
from edgeq_converters.training.loss_source import LossSource
from edgeq_converters.training.settings import TrainingSettings
from edgeq_converters.values import Scheme
from edgeq_converters.worker.protocol import TuneJob

SCHEMES = ("int8", "int4")
SCHEMA = "edgeq.tuning/1"
"""The schema of a tuning's settings in its lineage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A tuned model and the recipe that converts it.

    Attributes:
        recipe_path: give it to `edgeq convert --recipe`; the recipe holds the learned ranges.
        epochs: how many were trained.
        best_epoch: the epoch whose weights were kept, selected on training samples reserved for this.
        kept: `qat`, or `ptq` where training did not help: `path` is then a copy of the source, and the recipe
            is that of a plain conversion.
        began: the starting point of the training in words.
        tensors: number of activations with a learned range.
        accuracy: top-1 on held-out samples, 0..1: `float` before training, `tuned` as a float model, and the
            integer files `ptq` and `qat`. Each is None without labels.
        agreement: share of the float model's answers that `ptq` and `qat` give on held-out samples, as
            `edgeq evaluate` compares them.
        agreement_of: what the answers are: `classes`, `boxes` or `mask`; None without any.
        accuracy_ci95, agreement_ci95: Wilson's 95 % intervals of these shares.
        accuracy_drop: accuracy of `float` minus that of `ptq`, `tuned` and `qat`; None without labels.
        accuracy_drop_ci95: Newcombe's 95 % intervals of the drops, for paired samples.
        smallest_drop: the smallest drop that the held-out samples could show; None where there is none.
        sqnr_db: SQNR of the worst output of `tuned`, `ptq` and `qat` against the float model, on held-out
            samples; None where nothing differs.
        loss: the user's loss of `float`, `tuned`, `ptq` and `qat` on held-out samples; None without one.
        samples: number of held-out samples; neither training nor the selection of the epoch saw them. A tuned
            model that is worse on them is not kept.
        seconds: duration of the training.
        tools: {package: version} of the libraries that took part.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
        lineage: how the file was made.
    """

    source: Path
    path: Path
    sha256: str
    recipe_path: Path
    recipe: Recipe
    epochs: int
    best_epoch: int
    kept: str
    began: str
    seed: int
    tensors: int
    accuracy: Mapping[str, float | None]
    agreement: Mapping[str, float | None]
    agreement_of: str | None
    accuracy_ci95: Mapping[str, tuple[float, float] | None]
    agreement_ci95: Mapping[str, tuple[float, float] | None]
    accuracy_drop: Mapping[str, float | None]
    accuracy_drop_ci95: Mapping[str, tuple[float, float] | None]
    smallest_drop: float | None
    sqnr_db: Mapping[str, float | None]
    loss: Mapping[str, float | None]
    samples: int
    seconds: float
    tools: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    lineage: Lineage

    def to_json(self) -> dict[str, Any]:
        """Return the tuning as `edgeq.tune/1`, for `--json` and the store."""
        return {
            "source": str(self.source),
            "path": str(self.path),
            "sha256": self.sha256,
            "recipe_path": str(self.recipe_path),
            "recipe": self.recipe.to_dict(),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "kept": self.kept,
            "began": self.began,
            "seed": self.seed,
            "tensors": self.tensors,
            "accuracy": dict(self.accuracy),
            "agreement": dict(self.agreement),
            "agreement_of": self.agreement_of,
            "accuracy_ci95": dict(self.accuracy_ci95),
            "agreement_ci95": dict(self.agreement_ci95),
            "accuracy_drop": dict(self.accuracy_drop),
            "accuracy_drop_ci95": dict(self.accuracy_drop_ci95),
            "smallest_drop": self.smallest_drop,
            "sqnr_db": dict(self.sqnr_db),
            "loss": dict(self.loss),
            "samples": self.samples,
            "tools": dict(self.tools),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "lineage": self.lineage.to_json(),
            "seconds": round(self.seconds, 3),
        }


def tune(
    source: Path,
    output: Path,
    *,
    training: Path | None,
    validation: Path | None = None,
    scheme: str = "int8",
    epochs: int | None = None,
    distill: bool = False,
    loss: Loss | LossSource | None = None,
    strict: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
    deadline_s: float = 6 * 3600.0,
    store: Recorder | None = None,
) -> Tuned:
    """Train a model with fake quantization, write it and its recipe, and record the run.

    The same source, data and seed give the same files. A failure writes nothing.

    Args:
        source: a .keras file with a Functional or Sequential model; or a float .tflite, with `distill`. Of a
            .tflite only the values of weights change, in their places.
        output: a file of the same kind; the recipe goes to the same name with `.recipe.json`.
        training: a .npz with `x` and `y` (docs/data.md).
        validation: data of the same form to measure on; None holds out a fifth of the training data.
        scheme: `int8`, or `int4` for weights of four bits where the runtime has kernels for them.
        epochs: None derives the number from the size of the data.
        distill: train towards the float model's outputs; needs no labels.
        loss: as in `convert`.
        strict: EQ334 for a useless result, in place of a warning; nothing is written then.
        seed: of everything random.
        on_progress: called with (step, done, total).
        deadline_s: the worker is killed after this time.
        store: where to record the run and its lineage: None is the store of the default workspace,
            `UNRECORDED` keeps no record.

    Raises:
        UsageError: an unknown scheme, fewer than one epoch, an output of another kind or that is the source.
        MissingExtra: TensorFlow is not installed.
        DataError: EQ2xx, the training or validation data.
        ModelError: EQ3xx, the model or its training.
        StoreError: the files were written, but the run cannot be recorded.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    if scheme not in SCHEMES:
        raise UsageError("--scheme", expected=f"one of {', '.join(SCHEMES)}", got=repr(scheme))
    check_epochs(epochs)
    trained_by = source_of(loss)
    check_one_loss(trained_by, distill=distill)
    check_paths(output, source, training, validation)
    recipe_path = output.with_suffix(".recipe.json")
    with worker_session("tune") as session:
        check_tunable(source, training, distill=distill)
        suffix = ".tflite" if detect(source) is SourceKind.TFLITE else ".keras"
        if output.suffix != suffix:
            raise UsageError(str(output), expected=f"a name that ends with {suffix}", got=output.name)
        require_writable(output)
        require_writable(recipe_path)
        written = session.workdir / f"tuned{suffix}"
        data = {
            "training": training,
            "validation": validation,
            "loss": None if trained_by is None else trained_by.file,
        }
        inputs = digest_inputs(source, data, lasting=True)
        job = TuneJob(
            source=source,
            output=written,
            scheme=Scheme(scheme),
            settings=TrainingSettings(
                training=Path(training) if training else None,
                validation=Path(validation) if validation else None,
                epochs=epochs,
                distill=distill,
                loss=trained_by,
                seed=seed,
            ),
            workdir=session.workdir,
        )
        result = session.run(job, subject=source, deadline_s=deadline_s, on_progress=on_progress)
        if strict and result.report.useless:
            raise ModelError(
                str(source),
                f"the result is useless: {result.report.useless}",
                hint="train for more --epochs, or keep the float model",
                code="EQ334",
            )
        _write(output, written.read_bytes(), recipe_path, result.report.recipe)
    report = result.report
    options = {"scheme": scheme, "epochs": epochs, "distill": distill, "seed": seed}
    if trained_by is not None:
        options["loss"] = str(trained_by)
    tuned = Tuned(
        source=source,
        path=output,
        sha256=sha256_of(output),
        recipe_path=recipe_path,
        seed=seed,
        recipe=report.recipe,
        epochs=report.epochs,
        best_epoch=report.best_epoch,
        kept=report.kept,
        began=report.began,
        tensors=report.tensors,
        accuracy=report.accuracy,
        agreement=report.agreement,
        agreement_of=report.agreement_of,
        accuracy_ci95=report.accuracy_ci95,
        agreement_ci95=report.agreement_ci95,
        accuracy_drop=report.accuracy_drop,
        accuracy_drop_ci95=report.accuracy_drop_ci95,
        smallest_drop=report.smallest_drop,
        sqnr_db=report.sqnr_db,
        loss=report.loss,
        samples=report.samples,
        notes=report.notes,
        warnings=report.warnings,
        seconds=time.monotonic() - started_s,
        tools=result.tools,
        lineage=lineage_of(
            inputs,
            recipe={"schema": SCHEMA, **options},
            tools=result.tools,
            backend="keras" if suffix == ".keras" else "tensorflow",
            output=output,
        ),
    )
    with recording_store(store) as records:
        records.record_run("tune", tuned.path.stem, tuned.to_json())
    return tuned


def _write(output: Path, model: bytes, recipe_path: Path, recipe: Recipe) -> None:
    try:
        # The recipe goes first: without the model next to it, it does no harm.
        write_atomic(recipe_path, (json.dumps(recipe.to_dict(), indent=1) + "\n").encode())
        write_atomic(output, model)
    except OSError as error:
        raise unwritable(output, error.strerror or str(error)) from error
