"""Verb `telemetry`: send stored windows to the host and delete the acknowledged ones."""

from __future__ import annotations

from edgeq_agent import wire
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.platforms import identity
from edgeq_agent.telemetry import outbox
from edgeq_agent.wire import Json

_MAX_LIMIT = 1000


def telemetry(call: Call) -> Json:
    """Send windows of one boot as events, oldest first.

    `pending` in the result counts the windows on the device after the acknowledgement, including those just
    sent. The host has received everything once a call sends none.
    """
    limit = request.integer(call.request, "limit", 0, _MAX_LIMIT, default=500)
    ack = call.request.get("ack")
    with outbox.opened(call.home) as box:
        acked = 0
        if ack is not None:
            named = request.mapping(call.request, "ack")
            acked = box.acknowledge(request.text(named, "boot"), request.integer(named, "seq", 0, 1 << 62))
        boot, windows = box.take(limit)
        for window in windows:
            call.response.send(wire.window(window))
        return {
            "device_id": identity.device_id(call.home),
            "boot": boot,
            "sent": len(windows),
            "pending": box.pending(),
            "acked": acked,
        }
