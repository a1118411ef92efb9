"""Evaluation: a model's outputs on data, and how far they are from a reference.

from edgeq.evaluation import evaluate
evaluate(Path("int8.tflite"), Path("evaluation.npz"), reference=Path("float.tflite"))
"""

from __future__ import annotations

from edgeq.evaluation.evaluation import evaluate
from edgeq.evaluation.running import ModelRun, dequantized, describe, raw_outputs, run
from edgeq_converters.values import ModelInfo, OpKind, OpLine, TensorInfo

__all__ = [
    "ModelInfo",
    "ModelRun",
    "OpKind",
    "OpLine",
    "TensorInfo",
    "dequantized",
    "describe",
    "evaluate",
    "raw_outputs",
    "run",
]
