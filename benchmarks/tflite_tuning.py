"""Gain of `edgeq tune --distill` on a float .tflite over its plain conversion, over several seeds.

`python -m benchmarks.tflite_tuning FLOAT.tflite UNLABELLED.npz TEST.npz [--schemes int8,int4] [--seeds 3]`

Both files have weights of four bits wherever the kernels support them (int4). The test samples take part in
no training, calibration or choice of the epoch. Top-1 is that of `y` in the test samples, if they have it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, last_line


def main() -> None:
    """Measure, print a line for each seed, and end with the JSON line."""
    from edgeq.conversion import tune

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--schemes", default="int8,int4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as folder:
        for scheme in asked.schemes.split(","):
            gains: list[float] = []
            for seed in range(asked.seeds):
                done = tune(
                    asked.source,
                    Path(folder) / f"tuned-{scheme}-{seed}.tflite",
                    training=asked.training,
                    validation=asked.test,  # only measured, and able to reject a tuned file
                    scheme=scheme,
                    distill=True,
                    seed=seed,
                )
                before, after = done.sqnr_db["ptq"] or 0.0, done.sqnr_db[done.kept] or 0.0
                gains.append(after - before)
                if not asked.json:
                    top = " ".join(f"{name} {value:.4f}" for name, value in done.accuracy.items() if value)
                    shown = (
                        f"{before:.2f} dB before, {done.sqnr_db['qat'] or 0.0:.2f} tuned, kept {done.kept}"
                    )
                    print(f"{scheme} seed {seed}: {shown}; {top}; {done.seconds:.0f} s", flush=True)
            name = f"{asked.source.stem} {scheme} SQNR gained over the plain conversion, mean"
            gain = round(statistics.mean(gains), 2)
            figures.append(Figure(name=name, value=gain, unit="dB", peer=0.0, reach=">=0"))
    print(last_line(figures))


if __name__ == "__main__":
    main()
