"""The condition of a slice: a mask of booleans, or a comparison with a column of the evaluation data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_COMPARISON = re.compile(r"""\s*([A-Za-z_]\w*)\s*(==|!=|<=|>=|<|>)\s*(?:"([^"]*)"|'([^']*)'|(\S+))\s*""")
_NAME = re.compile(r"\s*(not\s+)?([A-Za-z_]\w*)\s*")


class Operator(StrEnum):
    """How a column is compared with a value."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Which samples belong to a slice.

    Attributes:
        column: an array of the evaluation data with one value for each sample.
        operator: how its values are compared with `value`.
        value: a number, a text, or for a mask whether it must be set.
    """

    column: str
    operator: Operator
    value: float | str | bool

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return self.column if self.value else f"not {self.column}"
        value = f"'{self.value}'" if isinstance(self.value, str) else f"{self.value:.12g}"
        return f"{self.column} {self.operator} {value}"


def parse_condition(text: str) -> Condition:
    """Return the condition that a text states: `night`, `not night`, `snr_db < 5` or `room == 'kitchen'`.

    Raises:
        ValueError: it states none.
    """
    if (mask := _NAME.fullmatch(text)) is not None:
        return Condition(column=mask.group(2), operator=Operator.EQUAL, value=mask.group(1) is None)
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected the name of a mask, or a column, one of == != < <= > >= and a value, "
            f"as in snr_db < 5 or room == 'kitchen', got {text!r}"
        )
    column, operator, double, single, bare = match.groups()
    quoted = double if double is not None else single
    if quoted is not None:
        value: float | str = quoted
    else:
        try:
            value = float(bare)
        except ValueError as error:
            raise ValueError(f"expected a number or a text in quotes, got {bare!r}") from error
    if isinstance(value, str) and operator not in ("==", "!="):
        raise ValueError(f"a text can be compared by == and != alone, got {text!r}")
    return Condition(column=column, operator=Operator(operator), value=value)
