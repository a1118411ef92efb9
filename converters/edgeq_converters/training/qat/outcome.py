"""The report of a tuning: the float model and the integer files before and after, on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters import intervals
from edgeq_converters.metrics import sqnr_db, useless_result
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common import loop
from edgeq_converters.training.qat.report import TuningReport
from edgeq_converters.training.qat.scoring import Scorer

Array = npt.NDArray[Any]
Hits = npt.NDArray[np.bool_] | None


def _share(hits: Hits) -> float | None:
    return None if hits is None else float(hits.mean())


def _ci95(hits: Hits) -> intervals.Ends | None:
    return None if hits is None else intervals.share_ci95(hits)


def _drop(before: Hits, after: Hits) -> intervals.Drop | None:
    return None if before is None or after is None else intervals.drop(before, after)


def report(
    *,
    outputs: Mapping[str, Sequence[Array]],
    judge: Scorer,
    follows_float: bool,
    kept: str,
    epochs: int,
    best_epoch: int,
    began: str,
    recipe: Recipe,
    notes: tuple[str, ...],
    warnings: tuple[str, ...] = (),
) -> TuningReport:
    """Return the report.

    Args:
        outputs: real values on the held-out samples of `float` before training, `tuned` as a float model, and
            the integer files `ptq` and `qat`.
        judge: with the held-out samples, and the outputs of `float` as its reference.
        follows_float: whether the result must follow the float model, and not the labels alone.
        kept: `qat`, or `ptq` where training did not help.
    """
    before, labels = outputs["float"], judge.data.labels
    right = {name: loop.hits(values, labels) for name, values in outputs.items()}
    agreed = {name: judge.agreement(outputs[name]) for name in ("ptq", "qat")}
    same = {name: None if each is None else each.same for name, each in agreed.items()}
    answer = agreed["qat"]
    drops = {name: _drop(right["float"], right[name]) for name in ("ptq", "tuned", "qat")}
    useless = useless_result(outputs[kept], before if follows_float else None, labels)
    return TuningReport(
        useless=useless,
        warnings=(*warnings, *((f"the integer file is useless: {useless}",) if useless else ())),
        epochs=epochs,
        best_epoch=best_epoch,
        kept=kept,
        began=began,
        tensors=len(recipe.ranges),
        accuracy={name: _share(hits) for name, hits in right.items()},
        agreement={name: None if each is None else each.share for name, each in agreed.items()},
        agreement_of=None if answer is None else answer.answer.value,
        accuracy_ci95={name: _ci95(hits) for name, hits in right.items()},
        agreement_ci95={name: _ci95(hits) for name, hits in same.items()},
        accuracy_drop={name: None if drop is None else drop.share for name, drop in drops.items()},
        accuracy_drop_ci95={name: None if drop is None else drop.ci95 for name, drop in drops.items()},
        loss={
            name: None if judge.custom is None else judge.score(values).loss
            for name, values in outputs.items()
        },
        sqnr_db={name: _decibels(outputs[name], before) for name in ("tuned", "ptq", "qat")},
        smallest_drop=None if drops["qat"] is None else drops["qat"].smallest,
        samples=len(judge.data),
        recipe=recipe,
        notes=notes,
    )


def _decibels(outputs: Sequence[Array], before: Sequence[Array]) -> float | None:
    """Return the SQNR of the worst output; None where all are equal or one has no signal."""
    worst = min(sqnr_db([own], [exact]) for own, exact in zip(outputs, before, strict=True))
    return worst if np.isfinite(worst) else None
