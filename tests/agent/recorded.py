"""Responses that were recorded with version 1 of the wire format, and what a live one must have of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "wire" / "v1"
# Their keys are names of models or kinds of errors, or depend on the device.
_OPEN = ("counts", "errors", "absent", "models", "kept", "staged")


def messages(name: str) -> list[dict[str, Any]]:
    """Return the messages of a recording."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


def answers_as_recorded(name: str, answered: Any) -> None:
    """Check that the result of a live call has every key of the recorded one; new keys may be added.

    Args:
        name: of the recording: the verb, or the verb and a word after a hyphen.
        answered: what `Device.call` returned.
    """
    holds(messages(name)[-1]["result"], answered.result, name)


def holds(recorded: Any, live: Any, where: str) -> None:
    """Check that a live object has every key of a recorded one; what is empty is not looked into."""
    for name, inner in recorded.items():
        if inner in (None, {}, []) or name in _OPEN:
            continue
        assert name in live, f"{where}.{name} is gone from the answer"
        if isinstance(inner, dict) and live[name]:
            holds(inner, live[name], f"{where}.{name}")
