"""The source of a training's loss: a loss of Keras by name, or a function of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KERAS_LOSSES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "huber": "huber",
    "binary_crossentropy": "binary_crossentropy",
    "categorical_crossentropy": "categorical_crossentropy",
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy",
}
"""{name on the command line: function of `keras.losses`}; the last three take probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSource:
    """A loss: `function` of a Python file, or of `keras.losses` where there is none.

    Attributes:
        function: its name; `Class.method` for a static method.
        file: the Python file.
        package: the dotted name under which the file is imported where it is part of a package, else empty.
    """

    function: str
    file: Path | None = None
    package: str = ""

    def __str__(self) -> str:
        if self.file is None:
            return self.function
        return f"{self.package or self.file}:{self.function}"
