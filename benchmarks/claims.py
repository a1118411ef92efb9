"""Claim and truth: what a conversion states on held-out calibration samples, and what other samples show.

`python -m benchmarks.claims [--json] [--models kws,ic] [--counts 10,23,50] [--seeds 20] [--scheme int8]`

For each model, number of calibration samples and seed, all data is divided at random: the given number
calibrates, 500 other samples measure the written file. The peer is min/max without equalization or correction
on the same samples. Missing models are skipped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, last_line
from edgeq_converters.values import Claim

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCES = {"kws": "saved_model", "ic": "pretrainedResnet.h5"}
_OTHERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One conversion.

    Attributes:
        claim: None below 16 samples, of which none are held out.
        truth_db: output SQNR of the written file on other samples.
        plain_db: of min/max without equalization or correction.
    """

    model: str
    count: int
    seed: int
    claim: Claim | None
    truth_db: float
    plain_db: float

    def __str__(self) -> str:
        claim, stated = self.claim, "no claim"
        if claim is not None:
            stated = f"claim {claim.output_sqnr_db:5.1f} dB ({claim.low_db:5.1f} to {claim.high_db:5.1f})"
            stated += "" if _holds(claim, self.truth_db) else " OUTSIDE"
        return (
            f"{self.model:5} {self.count:4} samples, seed {self.seed}: {stated}, truth {self.truth_db:5.1f},"
            f" min/max {self.plain_db:5.1f}"
        )


def _holds(claim: Claim, truth_db: float) -> bool:
    return claim.low_db <= truth_db <= claim.high_db


def measure(name: str, count: int, seed: int, *, scheme: str, folder: Path) -> Row:
    """Convert with some of a model's samples, and measure the result on others."""
    from edgeq.conversion import Recipe, convert
    from edgeq.evaluation import evaluate
    from edgeq.store import UNRECORDED

    floating = folder / f"{name}.tflite"
    if not floating.exists():
        convert(SHARED / name / SOURCES[name], floating, scheme="float32", store=UNRECORDED)
    parts = [np.load(SHARED / name / f"{part}.npz")["x"] for part in ("calibration", "evaluation")]
    x = np.concatenate(parts)
    order = np.random.default_rng(seed).permutation(len(x))
    calibration, others = folder / "calibration.npz", folder / "others.npz"
    np.savez(calibration, x=x[order[:count]])
    np.savez(others, x=x[order[count : count + _OTHERS]])
    recipe = Recipe.from_dict({"schema": "edgeq.recipe/1", "scheme": scheme})
    off = {"calibrator": "minmax", "bias_correction": "off", "equalization": "off"}
    plain = Recipe.from_dict({"schema": "edgeq.recipe/1", "scheme": scheme, **off})
    reached = []
    for each in (plain, recipe):
        done = convert(
            floating, folder / "made.tflite", recipe=each, calibration=calibration, store=UNRECORDED
        )
        metrics = evaluate(done.path, others, reference=floating, store=UNRECORDED)
        reached.append(metrics.output_sqnr_db or 0.0)
    return Row(model=name, count=count, seed=seed, claim=done.claim, truth_db=reached[1], plain_db=reached[0])


def figures(rows: list[Row]) -> list[Figure]:
    """Return, for each model and count, how often the interval held the truth, and the gain over min/max."""
    measured = []
    for model, count in dict.fromkeys((row.model, row.count) for row in rows):
        of = [row for row in rows if (row.model, row.count) == (model, count)]
        stated = [(row.claim, row.truth_db) for row in of if row.claim is not None]
        name = f"{model}, {count} samples"
        if stated:
            inside = float(np.mean([_holds(claim, truth) for claim, truth in stated]))
            gaps = [claim.output_sqnr_db - truth for claim, truth in stated]
            error = float(np.median(np.abs(gaps)))
            what = f"{name}: intervals that hold the truth"
            measured.append(Figure(name=what, value=inside, unit="ratio", peer=0.95, reach=">=0.85"))
            what = f"{name}: median of claim minus truth"
            measured.append(
                Figure(name=what, value=float(np.median(gaps)), unit="dB", peer=0.0, reach="<=1.0")
            )
            what = f"{name}: median error of the claim"
            measured.append(Figure(name=what, value=error, unit="dB", peer=0.0, reach="<=1.0"))
        gain = float(np.median([row.truth_db - row.plain_db for row in of]))
        behind = max(row.plain_db - row.truth_db for row in of)
        what = f"{name}: median gain over min/max"
        measured.append(Figure(name=what, value=gain, unit="dB", peer=0.0, reach=">=0.0"))
        what = f"{name}: most behind min/max"
        measured.append(Figure(name=what, value=behind, unit="dB", peer=0.0, reach="<=0.5"))
    return measured


def main() -> None:
    """Measure, print a line for each conversion, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--models", default=",".join(SOURCES))
    parser.add_argument("--counts", default="10,23,50")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--scheme", default="int8")
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as temporary:
        for name in asked.models.split(","):
            if not (SHARED / name).exists():
                print(f"{name}: its folder is absent", file=sys.stderr)
                continue
            for count in map(int, asked.counts.split(",")):
                for seed in range(asked.seeds):
                    rows.append(measure(name, count, seed, scheme=asked.scheme, folder=Path(temporary)))
                    if not asked.json:
                        print(rows[-1], flush=True)
    print(last_line(figures(rows) if rows else []))


if __name__ == "__main__":
    main()
