"""Recurrent networks of 28 and 49 steps in full integer: top-1 against float, beside TensorFlow's quantizer.

`python -m benchmarks.recurrent [--json] [--models word_gru-0,...] [--keep FOLDER]`

A model's name ends with its seed. TensorFlow's quantizer gets the network with `unroll=True`, because it does
not look inside loops; edgeq gets the loops.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.figures import Figure
from benchmarks.recurrent_models import MODELS
from benchmarks.side_by_side import FLOAT, Row, Spent, run
from benchmarks.transformer_models import WORDS

SEEDS = range(3)
TOOLS = {"tensorflow": "unrolled", "edgeq quick": "float", "edgeq": "float"}
"""Tool -> the float model that it gets."""
MOST_DROP = 0.5
"""Points of top-1 below float: the goal."""
_TIMES = {"edgeq": 8, "edgeq quick": 3}


def measure(name: str, folder: Path) -> list[Row]:
    """Train a model, convert it with each tool, and compare the files on samples that no step has seen."""
    floating = folder / "float.tflite"
    if not floating.exists():
        run("-m", "benchmarks.recurrent_models", *name.rsplit("-", 1), folder)
    made: dict[str, tuple[Path, Spent]] = {}
    for tool, source in TOOLS.items():
        output = folder / f"{tool.replace(' ', '-')}.tflite"
        words = (tool, folder / f"{source}.tflite", folder / "calibration.npz", output)
        try:
            spent, printed = run("-m", "benchmarks.models_peers", *words)
        except SystemExit as error:
            print(f"{name}: {tool} fails: {str(error).splitlines()[-1][:160]}", file=sys.stderr)
            continue
        cpu_s = json.loads(printed.strip().splitlines()[-1])["cpu_s"]
        made[tool] = output, Spent(seconds=spent.seconds, cpu_s=cpu_s)
    return side_by_side.compared(name, floating, made, folder / "evaluation.npz")


def figures(name: str, rows: list[Row]) -> list[Figure]:
    """Return the figures of one model."""
    of = {row.tool: row for row in rows}
    peer = of.get("tensorflow")
    measured = []
    for tool, times in _TIMES.items():
        ours = of[tool]
        given: list[tuple[str, float, str, float | None, str]] = [
            (
                "top-1 drop",
                ours.drop * 100,
                "points",
                None if peer is None else peer.drop * 100,
                f"<={MOST_DROP}",
            ),
            ("integer operations", ours.integer, "share", None if peer is None else peer.integer, ">=1.0"),
            (
                "latency over float",
                ours.latency_us[0] / of[FLOAT].latency_us[0],
                "ratio",
                None if peer is None else peer.latency_us[0] / of[FLOAT].latency_us[0],
                "<=1.0",
            ),
        ]
        if peer is not None:
            ratio = ours.spent.cpu_s / peer.spent.cpu_s
            given.append(("processor time over TensorFlow's", ratio, "ratio", 1.0, f"<={times}"))
        measured += [
            Figure(name=f"{name} {tool} {what}", value=value, unit=unit, peer=other, reach=reach)
            for what, value, unit, other, reach in given
        ]
    return measured


def data(name: str) -> Path | None:
    """Return the folder that a model needs."""
    return WORDS if MODELS[name.rsplit("-", 1)[0]][0] == "words" else None


if __name__ == "__main__":
    side_by_side.main(
        __doc__,
        [f"{name}-{seed}" for name in MODELS for seed in SEEDS],
        measure=measure,
        figures=figures,
        data=data,
    )
