"""The answer to one call: its outputs, and which release computed them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """The outputs of one call, and the release that computed them.

    Attributes:
        outputs: by name, even when there is only one.
        arm: of the split; None without one.
        ticket: for `feedback`; None unless requested.
        restarted: whether the call's session restarted before it, because its release was replaced.
    """

    outputs: dict[str, Any]
    release: str
    arm: str | None
    ticket: str | None = None
    restarted: bool = False
