"""Check labels: integers for the classes of an output, or numbers of any shape for other tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files
from edgeq_converters.errors import ConverterError

Array = npt.NDArray[Any]


def check_labels(labels: Array, *, samples: int, classes: int, subject: str) -> npt.NDArray[np.int64]:
    """Return the labels as int64, after checking them against the samples and the model's classes.

    Raises:
        ConverterError: EQ206 count, EQ207 type, EQ208 range, EQ313 the model has fewer than two classes.
    """
    if labels.shape != (samples,):
        one_hot = labels.ndim == 2 and labels.shape == (samples, classes)
        column = labels.ndim == 2 and labels.shape == (samples, 1)
        raise ConverterError(
            "EQ206",
            subject,
            expected=f"`y` of shape ({samples},)",
            got=str(labels.shape),
            hint="y = y.argmax(1)"
            if one_hot and not column
            else "y = y[:, 0]"
            if column
            else "one label for each sample; of sequences (sequences, steps, ...), one for each step:"
            " `y` of shape (sequences, steps)",
        )
    if labels.dtype.kind not in "iu":
        raise ConverterError(
            "EQ207",
            subject,
            expected="integer labels in `y`",
            got=f"dtype {labels.dtype}",
            hint="y.astype(int)",
        )
    if classes < 2:
        raise ConverterError(
            "EQ313",
            subject,
            "accuracy needs an output with at least two classes",
            got=f"{classes} value per sample",
            hint="remove `y` from the data to compare outputs only",
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise ConverterError(
            "EQ208",
            subject,
            expected=f"labels from 0 to {classes - 1}",
            got=f"{labels[first]} at index {first} ({outside.size} such labels)",
        )
    return labels.astype(np.int64)


def check_numbers(labels: Array, *, samples: int, subject: str) -> Array:
    """Return labels of any numeric type and shape, samples first, after checking that they are finite.

    Raises:
        ConverterError: EQ202 empty, EQ204 NaN or infinity, EQ205 not numeric, EQ206 count.
    """
    checked = files.checked({files.LABELS: labels}, subject=subject)[files.LABELS]
    if len(checked) != samples:
        raise ConverterError(
            "EQ206",
            subject,
            expected=f"`{files.LABELS}` of shape ({samples}, ...)",
            got=str(checked.shape),
            hint="one label, or one row of labels, for each sample",
        )
    return checked
