"""The converters' exception, its codes, and its translation into the caller's own exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

CODES: Mapping[str, str] = {
    "EQ104": "a part of the extra `convert` is not installed",
    "EQ201": "the data cannot be read",
    "EQ202": "the data is empty",
    "EQ203": "the data's shape does not match the model's input",
    "EQ204": "the data holds NaN or infinity",
    "EQ205": "an array is missing, unknown or not numeric",
    "EQ206": "the labels' count or shape does not match the samples",
    "EQ207": "the labels are not integers",
    "EQ208": "a label is outside the model's classes",
    "EQ209": "calibration data is required",
    "EQ210": "a folder of images cannot be used",
    "EQ211": "values do not fit the model input's integer type",
    "EQ212": "histograms cannot be read or merged",
    "EQ220": "training data is required",
    "EQ301": "the model does not exist",
    "EQ302": "the file is not a model",
    "EQ303": "the .tflite is truncated or damaged",
    "EQ304": "the model is already quantized, and a float model is required",
    "EQ305": "the source model cannot be loaded or converted to .tflite",
    "EQ306": "the model's input shape is not fixed",
    "EQ307": "operations stayed float in a full-integer model",
    "EQ308": "the quantizer refused the model",
    "EQ309": "the float model gives NaN or infinity on the calibration data",
    "EQ310": "the conversion process crashed or passed its deadline",
    "EQ311": "the output cannot be written",
    "EQ312": "the model and the reference do not match",
    "EQ313": "accuracy needs an output with at least two classes",
    "EQ314": "pruning and tuning need a Functional or Sequential Keras 3 model",
    "EQ315": "the model's loss cannot be inferred: its output is not class scores",
    "EQ316": "nothing in the model can be pruned",
    "EQ317": "training diverged",
    "EQ318": "ranges do not belong to the model",
    "EQ320": "the model is compiled for the Edge TPU",
    "EQ321": "the model's weights hold NaN or infinity",
    "EQ322": "the .tflite does not compute what its source does",
    "EQ323": "the runtime lacks operations of the model",
    "EQ324": "a conversion cannot be reproduced",
    "EQ325": "edgetpu_compiler failed",
    "EQ330": "the recipe names an operation that the model does not have",
    "EQ331": "the histograms were taken from another model",
    "EQ332": "the backend does not support the scheme",
    "EQ333": "the signature to convert is unknown or not chosen",
    "EQ334": "the result does not follow its float model",
    "EQ335": "the model is not compiled for the Edge TPU",
    "EQ336": "the environment of onnx2tf cannot be installed",
    "EQ337": "a loop of the model cannot be written out",
    "EQ338": "the pruned model is not the original one without some channels",
    "EQ339": "the loss function cannot be used",
    "EQ340": "the machine that the model is for has no kernel for some of its operations",
    "EQ341": "a state names an input or output that the model does not have, or that do not fit",
    "EQ342": "operations or weights of the .tflite cannot be trained",
    "EQ343": "the function to train is not the .tflite's",
}


class ConverterError(Exception):
    """An expected failure of a conversion.

    Its message says what is wrong with which subject, what was expected, what was found, and what to do next.

    Args:
        code: one of CODES; EQ2xx is about data, EQ3xx about a model.
        subject: the file, array or operation that the failure is about.
        problem: what is wrong, if `expected` and `got` do not say it.
        hint: what the user can do.
    """

    def __init__(
        self,
        code: str,
        subject: str,
        problem: str | None = None,
        *,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.code = code
        self.subject = subject
        self.problem = problem
        self.expected = expected
        self.got = got
        self.hint = hint
        parts = [problem, expected and f"expected {expected}", got and f"got {got}"]
        super().__init__(f"{subject}: {', '.join(part for part in parts if part)}")

    def to_dict(self) -> dict[str, str | None]:
        """Return the error as JSON types, which the worker writes."""
        return {
            "code": self.code,
            "subject": self.subject,
            "problem": self.problem,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ConverterError:
        """Return the error that `to_dict` wrote."""
        return cls(
            body["code"],
            body["subject"],
            body["problem"],
            expected=body["expected"],
            got=body["got"],
            hint=body["hint"],
        )


_SIMPLER = ("dynamic", "float16", "float32")


def other_schemes(scheme: str) -> str:
    """Return a hint that names schemes which ask less of the quantizer than this one; never this one."""
    left = _SIMPLER[_SIMPLER.index(scheme) + 1 :] if scheme in _SIMPLER else _SIMPLER[:2]
    return f"use --scheme {' or '.join(left)}" if left else "convert the model's source again"


@contextmanager
def translated(families: Mapping[str, Callable[..., Exception]]) -> Iterator[None]:
    """Raise the caller's own exception instead of a ConverterError.

    Args:
        families: {first three characters of the code: class}, as {"EQ2": DataError, ...}. The class is called
            as `cls(subject, problem, expected=, got=, hint=, code=)`.
    """
    try:
        yield
    except ConverterError as error:
        raise families[error.code[:3]](
            error.subject,
            error.problem,
            expected=error.expected,
            got=error.got,
            hint=error.hint,
            code=error.code,
        ) from error
