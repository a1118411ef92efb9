"""Evaluate models: their outputs on data, compared with labels and with a float reference.

from edgeq.evaluation import evaluate
evaluate(Path("int8.tflite"), Path("evaluation.npz"), reference=Path("float.tflite"))
"""

from __future__ import annotations

from edgeq.evaluation.details import Details
from edgeq.evaluation.evaluation import Evaluation, evaluate, evaluate_model
from edgeq.evaluation.examine import examine
from edgeq.evaluation.running import ModelRun, dequantized, describe, raw_outputs, run
from edgeq.evaluation.task import LabelForm, TaskGuess, guess_task
from edgeq_converters.values import ModelInfo, OpKind, OpLine, TensorInfo

__all__ = [
    "Details",
    "Evaluation",
    "LabelForm",
    "ModelInfo",
    "ModelRun",
    "OpKind",
    "OpLine",
    "TaskGuess",
    "TensorInfo",
    "dequantized",
    "describe",
    "evaluate",
    "evaluate_model",
    "examine",
    "guess_task",
    "raw_outputs",
    "run",
]
