"""The deployer of real devices: each call is one connection, and what counts is what the device says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.names import unknown
from edgeq.fleet.protocols import DeployableBundle
from edgeq.fleet.rollout.outcomes import DeviceOutcome, Outcome, Serving
from edgeq.values import Device

# A rollback looks at the health of the release that comes back.
_ROLLBACK_S = 300.0


class FleetDeployer:
    """Deploys one bundle to devices of the inventory.

    Args:
        devices: by name. One that left the inventory since the rollout began refuses.
        soak_s: how long each device lets the release serve on trial, and goes back by itself if it fails.
        retry: of every call, all of which can be repeated: a rollback says from which release.
    """

    def __init__(
        self,
        devices: Mapping[str, Device],
        bundle: DeployableBundle,
        *,
        workspace: Path,
        timeout_s: float,
        soak_s: float = 0,
        retry: Retry = NO_RETRY,
    ) -> None:
        self._devices = devices
        self._soak_s = soak_s
        self._bundle = bundle
        self._workspace = workspace
        self._timeout_s = timeout_s
        self._retry = retry

    def status(self, device: str) -> Serving:
        """Ask the device what it serves of the bundle's model."""
        answer = self._call(device, "status", {})
        model: Mapping[str, Any] = answer.get("models", {}).get(self._bundle.model, {})
        return Serving(
            release=model.get("current"),
            previous=model.get("previous"),
            state=str(model.get("state") or "none"),
            reason=str(model.get("reason") or ""),
        )

    def deploy(self, device: str) -> DeviceOutcome:
        """Plan and apply; what it serves is on trial then."""
        deploy_one(
            self._find(device),
            self._bundle,
            workspace=self._workspace,
            timeout_s=self._timeout_s,
            soak_s=self._soak_s,
            backoff=self._retry.backoff,
            on_retry=self._retry.on_retry,
        )
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def soak(self, device: str) -> DeviceOutcome:
        """Ask whether the release still serves; asked after its trial, the device commits it or goes back."""
        serving = self.status(device)
        if serving.release != self._bundle.release:
            now = serving.release[:12] if serving.release else "nothing"
            why = f": {serving.reason}" if serving.reason else ""
            return DeviceOutcome(outcome=Outcome.ROLLED_BACK, reason=f"{device}: serves {now} again{why}")
        if serving.state == "soaking":
            return DeviceOutcome(outcome=Outcome.PENDING)
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def rollback(self, device: str) -> DeviceOutcome:
        """Let the release before serve again, unless another one than the bundle's serves."""
        request = {"model": self._bundle.model, "from": self._bundle.release}
        answer = self._call(device, "rollback", request, deadline_s=_ROLLBACK_S)
        if answer.get("release") == self._bundle.release:
            return DeviceOutcome(outcome=Outcome.FAILED, reason=f"{device}: it serves still")
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def _call(
        self, device: str, verb: str, request: Mapping[str, Any], *, deadline_s: float = 60
    ) -> dict[str, Any]:
        return ask(
            self._find(device),
            lambda client: client.call(verb, request, deadline_s=deadline_s),
            repeatable=True,
            retry=self._retry,
            timeout_s=self._timeout_s,
        )

    def _find(self, name: str) -> Device:
        found = self._devices.get(name)
        if found is None:
            raise unknown("device", name, self._devices, hint="enrol it again with `edgeq devices add`")
        return found
