"""Verb `probe`: what the device is, which runtimes it has, and what can be measured on it."""

from __future__ import annotations

import time
from dataclasses import asdict

from edgeq_agent.autostart import record as service_record
from edgeq_agent.blobs import partial
from edgeq_agent.calls.call import Call
from edgeq_agent.platforms import facts, identity, sensors
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import clock
from edgeq_agent.storage.home import free_bytes
from edgeq_agent.wire import Json


def probe(call: Call, root: str = "/") -> Json:
    """Verb `probe`; the system's files are read below `root`."""
    platform = platforms.platform_of(root)
    autostart = service_record.summary(call.home)
    return dict(
        facts.read(root).to_json(),
        # An upload resumes incomplete blobs, or removes them when it needs their space: it counts as free.
        free_bytes=free_bytes(call.home.root) + partial.reclaimable_bytes(call.home),
        device_id=identity.device_id(call.home),
        boot_id=clock.read_boot_id(root),
        runtimes=[asdict(entry) for entry in registry.entries(call.home)],
        service=autostart.to_json() if autostart else None,
        refused_runtimes=[refusal._asdict() for refusal in registry.refused(call.home)],
        measures={name: each.to_json() for name, each in sensors.availability(platform).items()},
        time_ns=time.time_ns(),
    )
