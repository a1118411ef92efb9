"""Two releases on one device: stage the second, divide the calls, and undo both; each may be done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.apply import OnProgress, apply
from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.deploy import make_plan, pass_over
from edgeq.fleet.protocols import DeployableBundle
from edgeq.fleet.responses import changed, model_in
from edgeq.fleet.runtimes.ensure_runtime import RuntimeStartsNot
from edgeq.values import Device

_VERB_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a device's calls are divided.

    Attributes:
        base: the release that must serve there; the device ends the split when another one does.
        arms: name -> (release, weight).
        each_call: draw calls without a key one by one; else they are all the device's.
    """

    experiment: str
    model: str
    base: str
    arms: Mapping[str, tuple[str, float]]
    salt: str
    each_call: bool

    def request(self) -> dict[str, Any]:
        """The request of the agent's `split`."""
        arms = [
            {"name": name, "release": release, "weight": weight}
            for name, (release, weight) in self.arms.items()
        ]
        return {
            "model": self.model,
            "base": self.base,
            "arms": arms,
            "salt": self.salt,
            "experiment": self.experiment,
            "draw": "calls" if self.each_call else "device",
        }


def divide(
    device: Device,
    bundle: DeployableBundle,
    division: Division,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    retry: Retry = NO_RETRY,
) -> dict[str, Any]:
    """Stage a bundle's release on a device and divide its calls; a second run sends and changes nothing.

    Args:
        retry: of all of it: what is done already is not done again.

    Returns:
        Whether the release was `staged` and the calls `divided` by this run, and the `health` measured there.

    Raises:
        DeviceError: the release does not pass the device's checks, or another one serves (EQ553).
        TransportError: the way to the device failed; what arrived is kept there.
    """

    refused: dict[str, str] = {}

    def stage(client: AgentClient) -> dict[str, Any]:
        while True:
            todo = make_plan(client, bundle, workspace=workspace, without=refused)
            try:
                return apply(
                    todo.plan,
                    client,
                    bundle=bundle,
                    runtime=todo.runtime,
                    on_event=on_event,
                    begun=todo.begun,
                    verb="stage",
                )
            except RuntimeStartsNot as error:
                pass_over(device, todo.runtime, refused, error)

    def attempt(client: AgentClient) -> dict[str, Any]:
        answer = stage(client)
        split = client.call("split", division.request(), deadline_s=_VERB_S)
        return {
            "staged": bool(answer.get("changed")),
            "divided": changed(device.name, "split", split),
            "health": answer.get("health") or {},
        }

    return ask(device, attempt, repeatable=True, retry=retry)


def unite(
    device: Device, *, experiment: str, model: str, release: str, retry: Retry = NO_RETRY
) -> dict[str, Any]:
    """End an experiment on a device: no split, and its release let go. What belongs to another one stays.

    Returns:
        Whether the split was `cleared` and the release `unstaged` by this run, and what serves: `current`.

    Raises:
        DeviceError, TransportError: the device refused, or cannot be reached.
    """

    def attempt(client: AgentClient) -> dict[str, Any]:
        known = model_in(device.name, client.call("status", {}), model)
        return {"current": known.get("current"), **_undo(client, known, experiment, model, release)}

    return ask(device, attempt, repeatable=True, retry=retry)


def _undo(
    client: AgentClient, known: Mapping[str, Any], experiment: str, model: str, release: str
) -> dict[str, Any]:
    split = known.get("split")
    ours = isinstance(split, Mapping) and split.get("experiment") == experiment
    # One that cannot be read is served to nobody; nobody else would take it away.
    ours = ours or (isinstance(split, Mapping) and "problem" in split)
    cleared = unstaged = False
    if ours:
        answer = client.call("split", {"model": model, "clear": True}, deadline_s=_VERB_S)
        cleared = changed(client.device.name, "split", answer)
    if release in known.get("staged", {}) and (ours or split is None):
        request = {"model": model, "release": release}
        unstaged = changed(client.device.name, "unstage", client.call("unstage", request, deadline_s=_VERB_S))
    return {"cleared": cleared, "unstaged": unstaged}
