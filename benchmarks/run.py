"""`edgeq run`: time cold and cached, coverage of its intervals, 10,000 recorded runs, reproduction, kill -9.

`python -m benchmarks.run [--json] [--parts time,coverage,runs,reproduce,kills] [--kills 50]`

The blueprint has five schemes and every phase on MLPerf Tiny's keyword spotter (`../shared/data/kws`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, last_line

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "kws"
EDGEQ = (sys.executable, "-c", "import sys; from edgeq.cli import main; sys.exit(main())")
BLUEPRINT = f"""
schema_version = 1
name = "kws"
[model]
source = "{SHARED}/saved_model"
[data]
calibration = "{SHARED}/calibration.npz"
evaluation = "{SHARED}/evaluation.npz"
[variants]
schemes = ["float16", "dynamic", "int8", "int16x8", "int4"]
[require]
accuracy_drop_max = 0.01
robustness_drop_max = 0.05
size_max = "60 KiB"
"""
SIMULATIONS = 2000
RECORDS = 10_000
_KILL_S = (0.5, 12.0)


def edgeq(folder: Path, *words: str) -> tuple[float, str]:
    """Run a command; return its seconds and standard output."""
    began = time.perf_counter()
    command = [*EDGEQ, words[0], "--workspace", str(folder), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began, done.stdout


def made(folder: Path) -> Path:
    """Write the blueprint into a new folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blueprint.toml").write_text(BLUEPRINT)
    return folder


def times(folder: Path) -> list[Figure]:
    """Return the seconds of a cold and of a cached run through every phase."""
    made(folder)
    words = ("run", "blueprint.toml", "--explore", "--jobs", "2", "--json")
    cold, _ = edgeq(folder, *words)
    cached, _ = edgeq(folder, *words)
    return [
        Figure(name="run of five schemes, cold", value=round(cold, 1), unit="s", peer=None, reach="<=120"),
        Figure(name="run of five schemes, cached", value=round(cached, 2), unit="s", peer=None, reach="<=3"),
    ]


def coverage(_folder: Path) -> list[Figure]:
    """Return how often the interval of an accuracy drop holds the truth, over pairs of models and sizes."""
    from edgeq_converters.intervals import drop

    generator = np.random.default_rng(2026)
    shares = []
    for count in (100, 400, 1000):
        for accuracy, changed in ((0.95, 0.02), (0.9, 0.05), (0.7, 0.1)):
            held = 0
            for _ in range(SIMULATIONS):
                before = generator.random(count) < accuracy
                flipped = generator.random(count) < changed
                after = before ^ flipped
                low, high = drop(before, after).ci95
                truth = changed * (2 * accuracy - 1)
                held += low <= truth <= high
            shares.append(held / SIMULATIONS)
    worst, mean = min(shares), float(np.mean(shares))
    return [
        Figure(name="coverage of the 95 % interval, mean of 9 settings", value=round(mean, 4), unit="share",
               peer=None, reach=">=0.93"),
        Figure(name="coverage of the 95 % interval, lowest", value=round(worst, 4), unit="share", peer=None,
               reach=">=0.93"),
        Figure(name="coverage of the 95 % interval, highest", value=round(max(shares), 4), unit="share",
               peer=None, reach="<=0.97"),
    ]  # fmt: skip


def listed(folder: Path) -> list[Figure]:
    """Return the seconds to list runs of one kind among many."""
    from edgeq.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {"metrics": {"accuracy": 0.9}, "notes": ["x" * 200]}
    with Store.open(folder) as store:
        for number in range(RECORDS):
            store.record_run(("convert", "evaluate", "run")[number % 3], f"model-{number}", body)
    seconds = min(
        edgeq(folder, "runs", "--kind", "run", "--limit", str(RECORDS), "--json")[0] for _ in range(3)
    )
    name = f"{RECORDS} recorded runs, filtered and listed"
    return [Figure(name=name, value=round(seconds, 2), unit="s", peer=None, reach="<=1")]


def reproduced(folder: Path) -> list[Figure]:
    """Return whether the chosen model is built again from its record where nothing else is left."""
    made(folder)
    edgeq(folder, "run", "blueprint.toml", "--json")
    digest = chosen(folder)["sha256"]
    shutil.rmtree(folder / ".edgeq" / "runs")
    (folder / "kws.tflite").unlink()
    _, output = edgeq(folder, "reproduce", digest, "--json")
    same = float(json.loads(output)["same"])
    return [
        Figure(
            name="chosen model rebuilt with the same bytes", value=same, unit="share", peer=None, reach=">=1"
        )
    ]


def killed(folder: Path, kills: int) -> list[Figure]:
    """Return the share of runs, killed at random moments and restarted, that end with the same bytes."""
    edgeq(made(folder / "calm"), "run", "blueprint.toml", "--json")
    expected = chosen(folder / "calm")["sha256"]
    torn = made(folder / "torn")
    draw = np.random.default_rng(2026)
    done, ended, same = 0, 0, 0
    while done < kills:
        with subprocess.Popen(
            [*EDGEQ, "run", "--workspace", str(torn), "blueprint.toml", "--json"],
            cwd=torn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            try:
                process.wait(draw.uniform(*_KILL_S))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                done += 1
                continue
        same, ended = same + (chosen(torn)["sha256"] == expected), ended + 1
        shutil.rmtree(torn)
        made(torn)
    edgeq(torn, "run", "blueprint.toml", "--json")
    same, ended = same + (chosen(torn)["sha256"] == expected), ended + 1
    name = f"of {ended} runs with {kills} kills in all, those that end with the same bytes"
    return [Figure(name=name, value=same / ended, unit="share", peer=None, reach=">=1")]


def chosen(folder: Path) -> dict[str, Any]:
    """Return the chosen candidate of the last run of a workspace."""
    from edgeq.store import Store

    with Store.open(folder) as store:
        body = store.runs("run", 1)[0].body
    return next(each for each in body["candidates"] if each["name"] == body["chosen"])


def main() -> None:
    """Measure the named parts, print a line for each figure, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--parts", default="time,coverage,runs,reproduce,kills")
    parser.add_argument("--kills", type=int, default=50)
    asked = parser.parse_args()
    parts: dict[str, Callable[[Path], list[Figure]]] = {
        "time": times,
        "coverage": coverage,
        "runs": listed,
        "reproduce": reproduced,
        "kills": lambda folder: killed(folder, asked.kills),
    }
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as folder:
        for name in asked.parts.split(","):
            measured = parts[name](Path(folder) / name)
            figures += measured
            for figure in () if asked.json else measured:
                print(f"{figure.name}: {figure.value} {figure.unit}", flush=True)
    print(last_line(figures))


if __name__ == "__main__":
    main()
