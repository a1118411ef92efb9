"""Map the agent's error codes to exceptions: one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeq.errors import (
    AgentProtocolError,
    DeviceBusy,
    DeviceError,
    DeviceOutOfSpace,
    DeviceUnsupported,
    HealthCheckFailed,
)
from edgeq.text import one_line

_CODE = re.compile(r"EQ[0-9]{3}")
_LONGEST_TEXT = 1000
_CLASSES: dict[str, type[DeviceError]] = {
    "EQ501": DeviceOutOfSpace,
    "EQ502": AgentProtocolError,
    "EQ503": DeviceUnsupported,
    "EQ504": HealthCheckFailed,
    "EQ508": DeviceBusy,
    "EQ556": DeviceUnsupported,
    "EQ559": DeviceUnsupported,
    "EQ560": DeviceUnsupported,
    "EQ561": DeviceUnsupported,
}


def from_agent(name: str, body: Mapping[str, Any]) -> DeviceError:
    """Return the exception for an agent's `error` message; a code without a class becomes `DeviceError`.

    Args:
        name: the device's name in the inventory, which the agent does not know; it leads the message.
    """
    code = str(body.get("code") or "EQ500")
    if not _CODE.fullmatch(code):
        code = "EQ500"
    subject = _text(body.get("subject")) or ""
    return _CLASSES.get(code, DeviceError)(
        f"{name}: {subject}" if subject else name,
        _text(body.get("problem")),
        expected=_text(body.get("expected")),
        got=_text(body.get("got")),
        hint=_text(body.get("hint")),
        code=code,
    )


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return one_line(str(value).strip(), longest=_LONGEST_TEXT)
