"""Recorded windows of version 1, from an agent whose windows were not typed; both sides read them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from edgeq.store import ReceivedWindow

_FIXTURE = Path(__file__).parent / "window-v1.jsonl"


def entries() -> list[dict[str, Any]]:
    """Return the entries: `name`, `window`, `unclamped_quantiles_ns` and, of merged ones, `merged_from`."""
    return [json.loads(line) for line in _FIXTURE.read_text(encoding="utf-8").splitlines()]


def window_json(name: str, **changes: Any) -> dict[str, Any]:
    """Return one recorded window's JSON with some fields replaced."""
    body: dict[str, Any] = next(entry["window"] for entry in entries() if entry["name"] == name)
    return {**copy.deepcopy(body), **changes}


EVERY_FIELD = "arm b with everything"


def received(body: dict[str, Any]) -> ReceivedWindow:
    """Return a window as the collector passes it to the store."""
    return ReceivedWindow.parse(body)
