"""Verb `probe`: what the device is, which runtimes it has, what can be measured on it."""

from __future__ import annotations

import time

from edgeq_agent import device, facts, home, measures, partial, runtimes
from edgeq_agent.call import Call
from edgeq_agent.service import record as service_record
from edgeq_agent.wire import Json


def probe(call: Call, root: str = "/") -> Json:
    """Verb `probe`; `root` is where the system's files are looked up."""
    found = facts.read(root)
    found.update(
        # Half-arrived blobs are continued, or go when their space is needed: either way it is there.
        free_bytes=home.free_bytes(call.home.root) + partial.reclaimable_bytes(call.home),
        device_id=device.device_id(call.home),
        boot_id=device.boot_id(root),
        runtimes=[
            {name: entry[name] for name in ("digest", "interpreter", "module", "version")}
            for entry in runtimes.all_of(call.home)
        ],
        service=service_record.summary(call.home),
        refused_runtimes=runtimes.refused(call.home),
        measures=measures.availability(root),
        time_ns=time.time_ns(),
    )
    return found
