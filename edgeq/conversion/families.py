"""Which of edgeq's errors a converter's code becomes, and the type that its progress is told by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeq.errors import DataError, MissingExtra, ModelError

ERRORS: Mapping[str, Callable[..., Exception]] = {"EQ1": MissingExtra, "EQ2": DataError, "EQ3": ModelError}
Progress = Callable[[str, int, int], None]
