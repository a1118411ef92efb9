"""Evaluate models: their outputs on data, compared with labels and with a float reference.

from edgeq.evaluation import evaluate
evaluate(Path("int8.tflite"), Path("evaluation.npz"), reference=Path("float.tflite"))
"""

from __future__ import annotations

from edgeq.evaluation.evaluation import Evaluation, evaluate, evaluate_model
from edgeq.evaluation.running import ModelRun, dequantized, describe, raw_outputs, run
from edgeq_converters.values import ModelInfo, OpKind, OpLine, TensorInfo

__all__ = [
    "Evaluation",
    "ModelInfo",
    "ModelRun",
    "OpKind",
    "OpLine",
    "TensorInfo",
    "dequantized",
    "describe",
    "evaluate",
    "evaluate_model",
    "raw_outputs",
    "run",
]
