"""The options of a staged deploy as they were typed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """The options of `edgeq deploy` that concern stages; None when an option was not given."""

    stages: str | None = None
    soak: str | None = None
    abort: str | None = None
    on_abort: str | None = None
    at_once: int | None = None
    retry_failed: bool = False
    retries: int

    @property
    def staged(self) -> bool:
        """Whether any option asks for a staged deploy; `--soak` and `--retries` alone do not."""
        given = (self.stages, self.abort, self.on_abort, self.at_once)
        return self.retry_failed or any(value is not None for value in given)
