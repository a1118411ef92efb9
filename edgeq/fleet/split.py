"""Run two releases side by side on a device: stage the second, split the calls, and undo both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.apply import OnProgress, apply
from edgeq.fleet.connect import NO_RETRY, RetryPolicy, ask
from edgeq.fleet.deploy import make_plan, reject_runtime
from edgeq.fleet.operations import read_status
from edgeq.fleet.responses import Activation, Change, HealthReport, ModelStatus
from edgeq.fleet.runtimes.ensure_runtime import RuntimeFailed
from edgeq.values import Device

_VERB_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a device's calls are split between releases.

    Attributes:
        base: the release that must be current; the device ends the split when another one is.
        arms: name -> (release, weight).
        each_call: draw calls without a key one by one; otherwise the whole device is one draw.
    """

    experiment: str
    model: str
    base: str
    arms: Mapping[str, tuple[str, float]]
    salt: str
    each_call: bool

    def request(self) -> dict[str, Any]:
        """The request of the agent's verb `split`."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """What `divide` changed on a device.

    Attributes:
        staged: whether this run staged the release.
        divided: whether this run split the calls.
        health: what the device measured when it checked the release.
    """

    staged: bool
    divided: bool
    health: HealthReport

    def to_dict(self) -> dict[str, Any]:
        """The result as in `--json`."""
        return {"staged": self.staged, "divided": self.divided, "health": dict(self.health.document)}


@dataclass(frozen=True, slots=True, kw_only=True)
class United:
    """What `unite` changed on a device.

    Attributes:
        current: the release that serves now.
        cleared: whether this run ended the split.
        unstaged: whether this run released the staged candidate.
    """

    current: str | None
    cleared: bool
    unstaged: bool

    def to_dict(self) -> dict[str, Any]:
        """The result as in `--json`."""
        return {"current": self.current, "cleared": self.cleared, "unstaged": self.unstaged}


def divide(
    device: Device,
    bundle: Bundle,
    division: Division,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
) -> Divided:
    """Stage a bundle's release on a device and split its calls; a second run sends and changes nothing.

    Args:
        retry_policy: applies to the whole operation: what is done already is not done again.

    Raises:
        DeviceError: the release fails the device's checks, or another release is current (EQ553).
        TransportError: the connection failed; what arrived is kept on the device.
    """
    refused: dict[str, str] = {}

    def stage(client: AgentClient) -> Activation | None:
        while True:
            planned = make_plan(client, bundle, workspace=workspace, without=refused)
            try:
                return apply(
                    planned.plan,
                    client,
                    bundle=bundle,
                    runtime=planned.runtime,
                    on_event=on_event,
                    partial_blobs=planned.partial_blobs,
                    verb="stage",
                )
            except RuntimeFailed as error:
                reject_runtime(device, planned.runtime, refused, error)

    def attempt(client: AgentClient) -> Divided:
        staged = stage(client)
        split = client.request(Change, "split", division.request(), deadline_s=_VERB_S)
        return Divided(
            staged=staged is not None and staged.changed,
            divided=split.changed,
            health=staged.health if staged else HealthReport(),
        )

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def unite(
    device: Device, *, experiment: str, model: str, release: str, retry_policy: RetryPolicy = NO_RETRY
) -> United:
    """End an experiment on a device: clear its split and unstage its release; leave other experiments alone.

    Raises:
        DeviceError, TransportError: the device refused, or cannot be reached.
    """

    def attempt(client: AgentClient) -> United:
        return _undo(client, read_status(client).model(model), experiment, model, release)

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def _undo(client: AgentClient, status: ModelStatus, experiment: str, model: str, release: str) -> United:
    # A split that the device cannot read has no effect, and nothing else would remove it.
    ours = status.split is not None and (
        status.split.experiment == experiment or status.split.problem is not None
    )
    cleared = unstaged = False
    if ours:
        request: dict[str, Any] = {"model": model, "clear": True}
        cleared = client.request(Change, "split", request, deadline_s=_VERB_S).changed
    if release in status.staged and (ours or status.split is None):
        request = {"model": model, "release": release}
        unstaged = client.request(Change, "unstage", request, deadline_s=_VERB_S).changed
    return United(current=status.current, cleared=cleared, unstaged=unstaged)
