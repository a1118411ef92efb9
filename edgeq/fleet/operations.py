"""The agent's everyday verbs, one call a device, begun again where that can do no harm."""

from __future__ import annotations

from typing import Any

from edgeq.fleet.agent.client import AgentClient, Payload
from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.names import one_release
from edgeq.fleet.responses import model_in, status_of
from edgeq.values import Device

_HEALTH_S = 300.0


def status(device: Device, *, retry: Retry = NO_RETRY) -> dict[str, Any]:
    """Return what the device serves; the agent's `status`.

    Raises:
        AgentProtocolError: it answers something else.
    """

    def once(client: AgentClient) -> dict[str, Any]:
        return status_of(device.name, client.call("status", {}))

    return ask(device, once, repeatable=True, retry=retry)


def rollback(device: Device, model: str, *, retry: Retry = NO_RETRY) -> dict[str, Any]:
    """Put a model back to its previous release, and return the agent's answer.

    It goes back once, however often it is begun again: every try says from which release.

    Raises:
        DeviceError: EQ507 there is none, EQ504 it is not healthy any more, EQ510 no such model.
    """
    seen: list[str] = []

    def once(client: AgentClient) -> dict[str, Any]:
        if not seen:
            entry = model_in(device.name, client.call("status", {}), model)
            seen.extend(release for release in [entry.get("current")] if release)
        request = {"model": model, **({"from": seen[0]} if seen else {})}
        answer = client.call("rollback", request, deadline_s=_HEALTH_S)
        if seen and not answer["changed"] and answer["release"] != seen[0]:
            # A try before this one did it, and its answer was lost.
            return {**answer, "previous": seen[0], "changed": True}
        return answer

    return ask(device, once, repeatable=True, retry=retry)


def prune(device: Device, *, dry_run: bool, retry: Retry = NO_RETRY) -> dict[str, Any]:
    """Remove what nothing on a device refers to, and return the agent's answer: what goes and what stays.

    Begun again it removes the rest; the answer has what that try removed.

    Args:
        dry_run: remove nothing.

    Raises:
        DeviceError: EQ508 another call changes the device.
    """

    def once(client: AgentClient) -> dict[str, Any]:
        return client.call("prune", {"dry_run": dry_run}, deadline_s=_HEALTH_S)

    return ask(device, once, repeatable=True, retry=retry)


def pin(
    device: Device, model: str, release: str | None, *, keep: bool, retry: Retry = NO_RETRY
) -> dict[str, Any]:
    """Keep a release on a device (or let it go), and return the agent's answer.

    Args:
        release: its id, or the first digits of it; None is the one that serves.
        keep: False lets it go.

    Raises:
        UnknownName: no release, or more than one, begins so.
        DeviceError: EQ509 it is not on the device, EQ510 no such model.
    """

    def once(client: AgentClient) -> dict[str, Any]:
        request = {"model": model}
        if release is not None:
            entry = model_in(device.name, client.call("status", {}), model)
            known = {*entry.get("releases", ()), *entry.get("pins", ())}
            request["release"] = one_release(release, known, f"{device.name}: {model}")
        return client.call("pin" if keep else "unpin", request, deadline_s=_HEALTH_S)

    return ask(device, once, repeatable=True, retry=retry)


def infer(
    device: Device,
    model: str,
    payload: Payload,
    *,
    window: int = 50,
    outputs: bool = False,
    timeout_s: float = 120,
    retry: Retry = NO_RETRY,
) -> dict[str, Any]:
    """Run samples through a device's current model, and return the agent's answer.

    Only the connection is tried again: the device records what it inferred, and would record it twice.

    Args:
        payload: an .npz of `input_0`, ... with the samples first.
        window: samples a telemetry window.
        timeout_s: bound of the inference on the device.
    """
    request = {"model": model, "window": window, "outputs": outputs, "timeout_s": timeout_s}

    def once(client: AgentClient) -> dict[str, Any]:
        # The device's own deadline comes first: its answer says more than our giving up.
        return client.call("infer", request, payload=payload, deadline_s=timeout_s + 30)

    return ask(device, once, repeatable=False, retry=retry)
