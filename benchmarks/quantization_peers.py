"""Peers of the quantization benchmark, each in its own process.

`python -m benchmarks.quantization_peers tensorflow|litert SOURCE CALIBRATION OUTPUT [FLOAT_OUTPUT]`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def tensorflow(source: Path, calibration: Path, output: Path, float_output: Path) -> None:
    """Write TFLiteConverter's float32 and full-integer int8 models, the latter with its own calibration."""
    import tensorflow as tf

    if source.suffix == ".h5":
        import tf_keras

        frozen = output.with_suffix(".saved")
        tf_keras.models.load_model(source, compile=False).export(frozen)
        source = frozen
    if source.suffix == ".keras":
        import keras

        frozen = output.with_suffix(".saved")
        keras.models.load_model(source, compile=False).export(frozen, verbose=False)
        source = frozen
    float_output.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(source)).convert())
    samples = np.load(calibration)["x"].astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    output.write_bytes(converter.convert())


def litert(source: Path, calibration: Path, output: Path) -> None:
    """Write litert-quantizer's static int8 model with its defaults: its own calibration, in sample order."""
    from litert_quantizer import quantizer, recipe

    engine: Any = quantizer.Quantizer(str(source))
    engine.load_quantization_recipe(recipe.static_wi8_ai8())
    runner = _signature(source)
    samples = np.load(calibration)["x"].astype(np.float32)
    ranges = engine.calibrate({runner[0]: [{runner[1]: row[None]} for row in samples]})
    output.write_bytes(bytes(engine.quantize(ranges).quantized_model))


def _signature(source: Path) -> tuple[str, str]:
    from ai_edge_litert.interpreter import Interpreter

    key, body = next(iter(Interpreter(model_path=str(source)).get_signature_list().items()))
    return key, body["inputs"][0]


if __name__ == "__main__":
    paths = [Path(word) for word in sys.argv[2:]]
    if sys.argv[1] == "tensorflow":
        tensorflow(*paths)
    else:
        litert(*paths)
