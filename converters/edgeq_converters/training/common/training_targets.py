"""Targets of a loss of the user's: the arrays `y` and `y_NAME` of the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files, samples
from edgeq_converters.data.files import LABELS, RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTargets:
    """The target arrays of a file, as they were read.

    Attributes:
        subject: the file, for messages.
        arrays: by their names in the file.
    """

    subject: str
    arrays: Mapping[str, Array]

    def checked(self, count: int, outputs: Sequence[str]) -> dict[str, Array]:
        """Return the targets by output: `y_NAME` and `y_0` as NAME, `y` as the only output.

        Args:
            count: number of samples.

        Raises:
            ConverterError: EQ203 to EQ206 they are not finite, or not one a sample; EQ220 there is none.
        """
        if not self.arrays:
            raise ConverterError(
                "EQ220",
                self.subject,
                expected="targets `y`, or `y_NAME` for each output",
                got="samples only",
                hint="add targets, or --distill, which needs none",
            )
        targets: dict[str, Array] = {}
        for name, array in files.checked(self.arrays, subject=self.subject).items():
            if len(array) != count:
                raise ConverterError(
                    "EQ206",
                    self.subject,
                    expected=f"{count} targets in `{name}`, one for each sample",
                    got=f"{len(array)}",
                )
            wide = {"f": np.float32, "u": np.int64, "i": np.int64}.get(array.dtype.kind)
            targets[_named(name, outputs)] = array if wide is None else array.astype(wide)
        return targets


def of(raw: RawSamples, inputs: Sequence[TensorInfo], outputs: Sequence[str]) -> RawTargets:
    """Return the arrays `y` and `y_NAME` that no input has as its name; none where there are no outputs."""
    if not outputs:
        return RawTargets(subject=raw.subject, arrays={})
    arrays = {
        name: array
        for name, array in raw.arrays.items()
        if name.startswith(f"{LABELS}_") and not samples.input_is_called(inputs, name)
    }
    if raw.labels is not None and not samples.input_is_called(inputs, LABELS):
        arrays[LABELS] = raw.labels
    return RawTargets(subject=raw.subject, arrays=arrays)


def _named(name: str, outputs: Sequence[str]) -> str:
    rest = name.removeprefix(f"{LABELS}_")
    if name == LABELS:
        return outputs[0] if len(outputs) == 1 else name
    if rest in outputs or not rest.isdecimal() or int(rest) >= len(outputs):
        return rest
    return outputs[int(rest)]


def are_classes(labels: Array | None, classes: int) -> bool:
    """Return whether labels are class numbers, so that accuracy can be measured."""
    if labels is None or classes < 2 or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return False
    return bool(labels.min(initial=0) >= 0 and labels.max(initial=0) < classes)
