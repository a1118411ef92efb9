"""The native program as a device's runtime: sent, proved there, and written into the inventory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.agent.chunks import Content
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import upload
from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.responses import lacking
from edgeq.fleet.runtimes.choice import native_runtime
from edgeq.fleet.runtimes.ensure_runtime import make_runtime
from edgeq.fleet.runtimes.wheels import Runtime
from edgeq.values import Device


def use_native(workspace: Path, name: str, path: Path, *, retry: Retry = NO_RETRY) -> Runtime:
    """Prove a `benchmark_model` program on a device and let deploys use it where nothing better starts.

    Raises:
        UnknownName: no such device.
        ConfigError: no such file.
        DeviceUnsupported: EQ503 it does not start there, EQ561 it is another program; the inventory is as
            before.
        TransportError: the way to the device failed.
    """
    inventory = Inventory.load(workspace)
    device = inventory.get(name)
    runtime = native_runtime(path.expanduser().resolve(), "it was asked for")

    def bring(client: AgentClient) -> None:
        sizes = {file.sha256: file.size_bytes for file in runtime.files}
        lacks = lacking(name, client.call("missing", {"blobs": sizes}))
        contents = [
            Content(sha256=file.sha256, size_bytes=file.size_bytes, source=file.path)
            for file in runtime.files
            if file.sha256 in lacks.missing
        ]
        if contents:
            upload(client, contents, begun=lacks.begun)
        make_runtime(client, runtime, None)

    try:
        ask(device, bring, repeatable=True, retry=retry)
    except DeviceUnsupported as error:
        if error.hint == DeviceUnsupported.usual_hint:
            error.hint = "give TFLite's benchmark_model as it was built for this device (`uname -m` there)"
        raise
    (program,) = runtime.files
    inventory.replace(replace(device, native=program.path))
    return runtime


def forget_native(workspace: Path, name: str) -> Device:
    """Let deploys to a device use no native program; what is on the device stays until a prune."""
    inventory = Inventory.load(workspace)
    device = replace(inventory.get(name), native=None)
    inventory.replace(device)
    return device
