"""Use TFLite's `benchmark_model` as a device's runtime: send it, test it there, add it to the inventory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.errors import DeviceUnsupported
from edgeq.files import expand_user
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.connect import NO_RETRY, RetryPolicy, ask
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.responses import MissingBlobs
from edgeq.fleet.runtimes.choice import native_runtime
from edgeq.fleet.runtimes.ensure_runtime import ensure_runtime
from edgeq.fleet.runtimes.wheels import RuntimeSpec
from edgeq.values import Device


def use_native(
    workspace: Path, name: str, path: Path, *, retry_policy: RetryPolicy = NO_RETRY
) -> RuntimeSpec:
    """Test a `benchmark_model` program on a device, and let deploys use it when nothing better starts.

    Raises:
        UnknownName: no such device.
        ConfigError: no such file.
        DeviceUnsupported: EQ503 it does not start there, EQ561 it is another program; the inventory is
            unchanged.
        TransportError: the connection failed.
    """
    inventory = Inventory.load(workspace)
    device = inventory.get(name)
    runtime = native_runtime(expand_user(path).resolve(), "it was chosen by the user")

    def send(client: AgentClient) -> None:
        sizes = {file.sha256: file.size_bytes for file in runtime.files}
        blobs = client.request(MissingBlobs, "missing", {"blobs": sizes})
        contents = [
            Content(sha256=file.sha256, size_bytes=file.size_bytes, source=file.path)
            for file in runtime.files
            if file.sha256 in blobs.missing
        ]
        if contents:
            upload(client, contents, partial_blobs=blobs.partial)
        ensure_runtime(client, runtime, None)

    try:
        ask(device, send, repeatable=True, retry_policy=retry_policy)
    except DeviceUnsupported as error:
        if error.hint == DeviceUnsupported.usual_hint:
            error.hint = "use TFLite's benchmark_model built for this device (see `uname -m` there)"
        raise
    (program,) = runtime.files
    inventory.replace(replace(device, native=program.path))
    return runtime


def forget_native(workspace: Path, name: str) -> Device:
    """Stop using the native program for a device; the copy on the device stays until a prune."""
    inventory = Inventory.load(workspace)
    device = replace(inventory.get(name), native=None)
    inventory.replace(device)
    return device
