"""One evaluation: a model, and a float reference where there is one, on the same labelled data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeq.evaluation import figures
from edgeq.evaluation.running import Progress, dequantized, run_all
from edgeq.values import Metrics
from edgeq_converters.metrics import sqnr_db


def evaluate(
    model: Path,
    data: Path,
    *,
    reference: Path | None = None,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
    deadline_s: float = 3600.0,
) -> Metrics:
    """Return a model's metrics on data.

    Classes are those of the first output; the SQNR is over all outputs, dequantized.

    Args:
        data: .npz with `x` (or one array an input name) and, for accuracy, `y`; .npy; or a folder of images.
        reference: the float .tflite to compare with.
        on_progress: called with (step, done, total).
        on_note: called with what the user should be told: how the data was made to fit, and which share of
            it an integer input clips.

    Raises:
        DataError: EQ2xx.
        ModelError: EQ3xx.
    """
    models = [Path(model), *([Path(reference)] if reference is not None else [])]
    runs = run_all(models, Path(data), deadline_s=deadline_s, on_progress=on_progress)
    if on_note is not None:
        for note in runs[0].notes:
            on_note(note)
    outputs = dequantized(runs[0].outputs, runs[0].info.outputs)
    labels = runs[0].labels
    compared = dequantized(runs[1].outputs, runs[1].info.outputs) if len(runs) > 1 else None
    return Metrics(
        samples=len(outputs[0]),
        accuracy=None if labels is None else figures.accuracy(outputs[0], labels),
        agreement=None if compared is None else figures.agreement(outputs[0], compared[0]),
        output_sqnr_db=None if compared is None else sqnr_db(outputs, compared),
    )
