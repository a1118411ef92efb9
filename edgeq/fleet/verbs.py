"""The agent's everyday verbs, one call a device."""

from __future__ import annotations

from typing import Any

from edgeq.fleet.client import Payload
from edgeq.fleet.connect import open_agent
from edgeq.fleet.names import one_release
from edgeq.values import Device

_HEALTH_S = 300.0


def status(device: Device) -> dict[str, Any]:
    """Return what the device serves; the agent's `status`."""
    with open_agent(device) as client:
        return client.call("status", {})


def rollback(device: Device, model: str) -> dict[str, Any]:
    """Put a model back to its previous release, and return the agent's answer.

    Raises:
        DeviceError: EQ507 there is none, EQ504 it is not healthy any more, EQ510 no such model.
    """
    with open_agent(device) as client:
        return client.call("rollback", {"model": model}, deadline_s=_HEALTH_S)


def prune(device: Device, *, dry_run: bool) -> dict[str, Any]:
    """Remove what nothing on a device refers to, and return the agent's answer: what goes and what stays.

    Args:
        dry_run: remove nothing.

    Raises:
        DeviceError: EQ508 another call changes the device.
    """
    with open_agent(device) as client:
        return client.call("prune", {"dry_run": dry_run}, deadline_s=_HEALTH_S)


def pin(device: Device, model: str, release: str | None, *, keep: bool) -> dict[str, Any]:
    """Keep a release on a device (or let it go), and return the agent's answer.

    Args:
        release: its id, or the first digits of it; None is the one that serves.
        keep: False lets it go.

    Raises:
        UnknownName: no release, or more than one, begins so.
        DeviceError: EQ509 it is not on the device, EQ510 no such model.
    """
    with open_agent(device) as client:
        request = {"model": model}
        if release is not None:
            entry = client.call("status", {})["models"].get(model, {})
            known = {*entry.get("releases", ()), *entry.get("pins", ())}
            request["release"] = one_release(release, known, f"{device.name}: {model}")
        return client.call("pin" if keep else "unpin", request, deadline_s=_HEALTH_S)


def infer(
    device: Device,
    model: str,
    payload: Payload,
    *,
    window: int = 50,
    outputs: bool = False,
    timeout_s: float = 120,
) -> dict[str, Any]:
    """Run samples through a device's current model, and return the agent's answer.

    Args:
        payload: an .npz of `input_0`, ... with the samples first.
        window: samples a telemetry window.
        timeout_s: bound of the inference on the device.
    """
    request = {"model": model, "window": window, "outputs": outputs, "timeout_s": timeout_s}
    with open_agent(device) as client:
        # The device's own deadline comes first: its answer says more than our giving up.
        return client.call("infer", request, payload=payload, deadline_s=timeout_s + 30)
