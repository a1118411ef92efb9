"""Transformers and modern CNNs in full integer: top-1 against float, beside TFLiteConverter's int8.

`python -m benchmarks.transformers [--json] [--models vit,...] [--keep FOLDER]`
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.figures import Figure
from benchmarks.side_by_side import EDGEQ, FLOAT, Row, Spent, run
from benchmarks.transformer_models import MODELS, WORDS

MOST_DROP = 0.5
"""Points of top-1 below float: the goal."""


def measure(name: str, folder: Path) -> list[Row]:
    """Train a model, convert it with each tool, and compare the files on samples that no step has seen."""
    source, calibration, floating = (
        folder / each for each in ("model.keras", "calibration.npz", "float.tflite")
    )
    if not source.exists():
        run("-m", "benchmarks.transformer_models", name, folder)
    made: dict[str, tuple[Path, Spent]] = {}
    output = folder / "tensorflow.tflite"
    words: tuple[object, ...]
    words = ("-m", "benchmarks.quantization_peers", "tensorflow", source, calibration, output, floating)
    try:
        made["tensorflow"] = output, run(*words)[0]
    except SystemExit as error:
        print(f"{name}: TFLiteConverter refuses it: {str(error).splitlines()[-1][:160]}", file=sys.stderr)
    output = folder / "edgeq.tflite"
    words = ("-c", EDGEQ, "convert", source, "-o", output, "--scheme", "int8", "--calibration", calibration)
    made["edgeq"] = output, run(*words)[0]
    return side_by_side.compared(name, floating, made, folder / "evaluation.npz")


def figures(name: str, rows: list[Row]) -> list[Figure]:
    """Return the figures of one model."""
    of = {row.tool: row for row in rows}
    ours, plain, peer = of["edgeq"], of[FLOAT], of.get("tensorflow")

    def one(what: str, value: float, unit: str, other: float | None, reach: str) -> Figure:
        return Figure(name=f"{name} {what}", value=value, unit=unit, peer=other, reach=reach)

    return [
        one(
            "top-1 drop",
            (plain.top1 - ours.top1) * 100,
            "points",
            None if peer is None else (plain.top1 - peer.top1) * 100,
            f"<={MOST_DROP}",
        ),
        one("integer operations", ours.integer, "share", None if peer is None else peer.integer, ">=1.0"),
        one(
            "int8 output SQNR",
            ours.sqnr_db,
            "dB",
            None if peer is None else peer.sqnr_db,
            f">={-1e9 if peer is None else peer.sqnr_db:.6f}",
        ),
        one(
            "latency over TFLiteConverter's",
            ours.latency_us[0] / (plain if peer is None else peer).latency_us[0],
            "ratio",
            1.0,
            "<=1.05",
        ),
    ]


if __name__ == "__main__":
    side_by_side.main(
        __doc__,
        tuple(MODELS),
        measure=measure,
        figures=figures,
        data=lambda name: WORDS if MODELS[name][0] == "words" else None,
    )
