"""The limits of each effort, as counts, so that a result never depends on a clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeq_converters.quantization import correction
from edgeq_converters.recipe import Effort


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an effort may cost.

    Attributes:
        equalizes: whether equalized candidates are tried where the recipe leaves it open.
        measures_tensors: whether the noise of single tensors is measured, to choose a calibrator for each.
        runs: of the float model for this measurement, per calibration sample.
        cross_fit_macs: multiplications of a pass over all samples up to which few samples are held out in
            four folds; a larger model has one fold.
        cross_fit_values: values of all activations, over all samples, up to which it has four folds.
        finalists: how many candidates of a kind (equalized or not) are corrected before the choice.
        margin_db: how far the best uncorrected candidate of a kind may be behind the other kind's.
        screened, screened_rows: samples, and outputs of each layer, for these corrections.
        remakes: whether the chosen model is made again with all samples. Without that it is the one that was
            judged, and the samples held out have no part in it.
        samples, rows: for the correction of the model that is made again.
    """

    equalizes: bool
    measures_tensors: bool
    runs: float
    cross_fit_macs: int
    cross_fit_values: int
    finalists: int
    margin_db: float
    screened: int
    screened_rows: int
    remakes: bool
    samples: int
    rows: int


LIMITS: Mapping[Effort, Limits] = {
    Effort.QUICK: Limits(
        equalizes=False,
        measures_tensors=False,
        runs=0.0,
        cross_fit_macs=0,
        cross_fit_values=0,
        finalists=1,
        margin_db=4.0,
        screened=32,
        screened_rows=2048,
        remakes=False,
        samples=32,
        rows=2048,
    ),
    Effort.STANDARD: Limits(
        equalizes=True,
        measures_tensors=True,
        runs=2.0,
        cross_fit_macs=1_000_000_000,
        cross_fit_values=20_000_000,
        finalists=1,
        margin_db=4.0,
        screened=32,
        screened_rows=4096,
        remakes=True,
        samples=512,
        rows=correction.ROWS,
    ),
    Effort.BEST: Limits(
        equalizes=True,
        measures_tensors=True,
        runs=16.0,
        cross_fit_macs=20_000_000_000,
        cross_fit_values=1_000_000_000,
        finalists=2,
        margin_db=math.inf,
        screened=48,
        screened_rows=4096,
        remakes=True,
        samples=1 << 30,
        rows=2 * correction.ROWS,
    ),
}
