"""Quantizers of the benchmark of public networks, each in its own process.

`python -m benchmarks.models_peers TOOL FLOAT CALIBRATION OUTPUT` prints the processor seconds as JSON.
Loading the libraries is not counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EDGEQ = {"edgeq quick": "quick", "edgeq": "standard", "edgeq best": "best"}


def tensorflow(source: Path, calibration: Path, output: Path) -> float:
    """Write the model of TensorFlow's calibrator and `mlir_quantize`, with float inputs and outputs."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    samples = _samples(calibration)
    started = time.process_time()
    calibrator: Any = Calibrator(source.read_bytes())
    calibrated = calibrator.calibrate(lambda: ([row[None]] for row in samples))
    model = mlir_quantize(calibrated, input_data_type=tf.float32, output_data_type=tf.float32)
    seconds = time.process_time() - started
    output.write_bytes(model)
    return seconds


def litert(source: Path, calibration: Path, output: Path) -> float:
    """Write litert-quantizer's static int8 model with its defaults."""
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import quantizer, recipe

    samples = _samples(calibration)
    signatures = Interpreter(model_path=str(source)).get_signature_list()
    if not signatures:
        sys.exit("the model has no signature; litert-quantizer calibrates by signature")
    key, body = next(iter(signatures.items()))
    started = time.process_time()
    engine: Any = quantizer.Quantizer(str(source))
    engine.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = engine.calibrate({key: [{body["inputs"][0]: row[None]} for row in samples]})
    model = bytes(engine.quantize(ranges).quantized_model)
    seconds = time.process_time() - started
    output.write_bytes(model)
    return seconds


def edgeq(source: Path, calibration: Path, output: Path, *, effort: str) -> float:
    """Write edgeq's int8 model with all defaults but the effort, with float inputs and outputs."""
    import tensorflow  # noqa: F401 # some networks need it; loaded before the clock starts

    from edgeq_converters.recipe import Effort, Recipe
    from edgeq_converters.values import Scheme
    from edgeq_converters.worker.jobs.convert import convert

    recipe = Recipe(scheme=Scheme.INT8, io="float32", effort=Effort(effort))
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        convert(
            source,
            output,
            recipe=recipe,
            data=calibration,
            workdir=Path(folder),
            step=lambda what, total: _ignore,
        )
        return time.process_time() - started


def _ignore(amount: int) -> None:
    """Advance no progress bar."""


def _samples(calibration: Path) -> Any:
    with np.load(calibration) as kept:
        return kept["x"].astype(np.float32)


def main() -> None:
    """Run one tool."""
    tool, *paths = sys.argv[1:]
    source, calibration, output = map(Path, paths)
    peers: dict[str, Callable[[Path, Path, Path], float]] = {
        "tensorflow": tensorflow,
        "litert-quantizer": litert,
    }
    if tool in EDGEQ:
        seconds = edgeq(source, calibration, output, effort=EDGEQ[tool])
    else:
        seconds = peers[tool](source, calibration, output)
    print(json.dumps({"cpu_s": seconds}))


if __name__ == "__main__":
    main()
