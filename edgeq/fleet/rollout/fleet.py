"""The deployer of real devices: each call is one connection, and the device's own status decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeq.bundle.archive import Bundle
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.connect import ask
from edgeq.fleet.deploy import deploy_device
from edgeq.fleet.names import unknown
from edgeq.fleet.operations import read_status
from edgeq.fleet.responses import Activation
from edgeq.fleet.rollout.outcomes import DeviceOutcome, Outcome, ServedRelease
from edgeq.values import Device

# A rollback checks the health of the release that it returns to.
_ROLLBACK_S = 300.0


class FleetDeployer:
    """Deploys one bundle to devices of the inventory.

    Args:
        devices: by name. A device that left the inventory since the rollout began counts as refused.
        soak_s: soak time on each device, which rolls back a release that fails during it.
        retry_policy: of every call; all are idempotent, since a rollback names the release to leave.
    """

    def __init__(
        self,
        devices: Mapping[str, Device],
        bundle: Bundle,
        *,
        workspace: Path,
        timeout_s: float,
        soak_s: float = 0,
        retry_policy: RetryPolicy = NO_RETRY,
    ) -> None:
        self._devices = devices
        self._soak_s = soak_s
        self._bundle = bundle
        self._workspace = workspace
        self._timeout_s = timeout_s
        self._retry_policy = retry_policy

    def status(self, device: str) -> ServedRelease:
        """Return what the device serves of the bundle's model."""
        status = ask(
            self._find(device),
            read_status,
            repeatable=True,
            retry_policy=self._retry_policy,
            timeout_s=self._timeout_s,
        ).model(self._bundle.model)
        return ServedRelease(
            release=status.current,
            previous=status.previous,
            state=status.state or "none",
            reason=status.reason or "",
        )

    def deploy(self, device: str) -> DeviceOutcome:
        """Plan and apply; the release then soaks on the device."""
        deploy_device(
            self._find(device),
            self._bundle,
            workspace=self._workspace,
            timeout_s=self._timeout_s,
            soak_s=self._soak_s,
            retry_policy=self._retry_policy,
        )
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def soak(self, device: str) -> DeviceOutcome:
        """Return whether the release still serves; a query after the soak makes the device commit it."""
        serving = self.status(device)
        if serving.release != self._bundle.release:
            current = serving.release[:12] if serving.release else "nothing"
            reason = f": {serving.reason}" if serving.reason else ""
            return DeviceOutcome(
                outcome=Outcome.ROLLED_BACK, reason=f"{device}: serves {current} again{reason}"
            )
        if serving.state == "soaking":
            return DeviceOutcome(outcome=Outcome.PENDING)
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def rollback(self, device: str) -> DeviceOutcome:
        """Return to the release before, unless another release than the bundle's serves."""
        request = {"model": self._bundle.model, "from": self._bundle.release}
        result = ask(
            self._find(device),
            lambda client: client.request(Activation, "rollback", request, deadline_s=_ROLLBACK_S),
            repeatable=True,
            retry_policy=self._retry_policy,
            timeout_s=self._timeout_s,
        )
        if result.release == self._bundle.release:
            return DeviceOutcome(outcome=Outcome.FAILED, reason=f"{device}: the release still serves")
        return DeviceOutcome(outcome=Outcome.SUCCEEDED)

    def _find(self, name: str) -> Device:
        device = self._devices.get(name)
        if device is None:
            raise unknown(
                "device", name, self._devices, hint="enrol it again with `edgeq devices add NAME --host HOST`"
            )
        return device
