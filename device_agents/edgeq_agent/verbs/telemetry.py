"""Verb `telemetry`: send stored windows to the host and delete the acknowledged ones."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.call import Call
from edgeq_agent.calls.fields import Fields
from edgeq_agent.platforms import identity
from edgeq_agent.telemetry import open_windows, outbox
from edgeq_agent.wire import Json

_MAX_LIMIT = 1000


class Ack(NamedTuple):
    """The last window that the host has stored: everything of its boot up to it may be deleted."""

    boot: str
    seq: int


class TelemetryRequest(NamedTuple):
    """How many windows the host wants at most, and what it has stored."""

    limit: int
    ack: Ack | None


def telemetry(call: Call) -> Json:
    """Send windows of one boot as events, oldest first.

    `pending` in the result counts the windows on the device after the acknowledgement, including those just
    sent. The host has received everything once a call sends none.
    """
    request = _parse(call.fields)
    with outbox.opened(call.home) as box:
        open_windows.recover(call.home, box)
        acked = box.acknowledge(*request.ack) if request.ack is not None else 0
        boot, windows = box.take(request.limit, request.ack)
        for window in windows:
            call.response.send(wire.window(window))
        return {
            "device_id": identity.device_id(call.home),
            "boot": boot,
            "sent": len(windows),
            "pending": box.pending(),
            "acked": acked,
        }


def _parse(fields: Fields) -> TelemetryRequest:
    ack = None
    if fields.has("ack"):
        stored = fields.object("ack")
        ack = Ack(stored.text("boot"), stored.integer("seq", 0, 1 << 62))
    return TelemetryRequest(fields.integer("limit", 0, _MAX_LIMIT, default=500), ack)
