"""Run two releases side by side on a device: stage the second, split the calls, and undo both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
class SplitArm:
    """A release and its share of the calls.

    Attributes:
        weight: the share, 0 to 1.
    """

    name: str
    release: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a device's calls are split between releases.

    Attributes:
        base: the release that must be current; the device ends the split when another one is.
        each_call: draw calls without a key one by one; otherwise the whole device is one draw.
    """

    experiment: str
    model: str
    base: str
    arms: tuple[SplitArm, ...]
    salt: str
    each_call: bool

    def request(self) -> dict[str, Any]:
        """The request of the agent's verb `split`."""
        return {
            "model": self.model,
            "base": self.base,
            "arms": [asdict(arm) for arm in self.arms],
            "salt": self.salt,
            "experiment": self.experiment,
            "draw": "calls" if self.each_call else "device",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitStart:
    """What `start_split` changed on a device.

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
class SplitEnd:
    """What `end_split` changed on a device.

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


def start_split(
    device: Device,
    bundle: Bundle,
    split: Split,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
) -> SplitStart:
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
            planned.send_trust(client)
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

    def attempt(client: AgentClient) -> SplitStart:
        staged = stage(client)
        divided = client.request(Change, "split", split.request(), deadline_s=_VERB_S)
        return SplitStart(
            staged=staged is not None and staged.changed,
            divided=divided.changed,
            health=staged.health if staged else HealthReport(),
        )

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def end_split(
    device: Device, *, experiment: str, model: str, release: str, retry_policy: RetryPolicy = NO_RETRY
) -> SplitEnd:
    """End an experiment on a device: clear its split and unstage its release; leave other experiments alone.

    Raises:
        DeviceError, TransportError: the device refused, or cannot be reached.
    """

    def attempt(client: AgentClient) -> SplitEnd:
        return _clear(client, read_status(client).model(model), experiment, model, release)

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def _clear(client: AgentClient, status: ModelStatus, experiment: str, model: str, release: str) -> SplitEnd:
    # A split that the device cannot read has no effect, and nothing else would remove it.
    own_split = status.split is not None and (
        status.split.experiment == experiment or status.split.problem is not None
    )
    cleared = unstaged = False
    if own_split:
        cleared = client.request(Change, "split", {"model": model, "clear": True}, deadline_s=_VERB_S).changed
    if release in status.staged and (own_split or status.split is None):
        unstaged = client.request(
            Change, "unstage", {"model": model, "release": release}, deadline_s=_VERB_S
        ).changed
    return SplitEnd(current=status.current, cleared=cleared, unstaged=unstaged)
