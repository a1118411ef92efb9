"""Deploy a bundle to several devices concurrently: plan for all, then apply the plans and record the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.bundle.archive import Bundle
from edgeq.errors import EdgeqError
from edgeq.fleet.apply import OnProgress
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.deploy import DeployPlan, DeviceDeploy, deploy_device, plan_one, record_deploy
from edgeq.fleet.parallel import on_each
from edgeq.store import Store
from edgeq.values import Device


def plan_many(
    devices: Sequence[Device], bundle: Bundle, *, workspace: Path, retry_policy: RetryPolicy = NO_RETRY
) -> tuple[DeviceDeploy, ...]:
    """Plan a deploy to each device, in the order given; what they serve is not changed.

    A device that cannot be reached, or whose plan is blocked, has an `error`.
    """
    plans = on_each(
        devices,
        lambda device: plan_one(device, bundle, workspace=workspace, retry_policy=retry_policy),
    )
    return tuple(
        DeviceDeploy(
            device=device.name,
            planned=plans.done.get(device.name),
            error=plans.failed.get(device.name) or _blocked(plans.done[device.name]),
        )
        for device in devices
    )


def deploy_many(
    devices: Sequence[Device],
    bundle: Bundle,
    *,
    workspace: Path,
    planned: Sequence[DeviceDeploy] | None = None,
    on_event: OnProgress | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
    soak_s: float = 0,
    ignore_attempt_limit: bool = False,
    store: Store | None = None,
) -> tuple[DeviceDeploy, ...]:
    """Deploy a bundle to devices concurrently and record it; a failure on one device leaves the others alone.

    Args:
        planned: the plans of `plan_many`, exactly which are applied; by default they are made first.
        on_event, retry_policy, soak_s, ignore_attempt_limit, store: as for `deploy_one`.

    Returns:
        One entry per device, in the order given; those that failed have an `error`.

    Raises:
        StoreError: the store cannot be opened.
    """
    if planned is None:
        planned = plan_many(devices, bundle, workspace=workspace, retry_policy=retry_policy)
    plans = {entry.device: entry.planned for entry in planned if needs_apply(entry)}
    applied = on_each(
        [device for device in devices if device.name in plans],
        lambda device: deploy_device(
            device,
            bundle,
            workspace=workspace,
            planned=plans[device.name],
            on_event=on_event,
            retry_policy=retry_policy,
            soak_s=soak_s,
            ignore_attempt_limit=ignore_attempt_limit,
        ),
    )
    entries = tuple(
        DeviceDeploy(
            device=entry.device,
            planned=entry.planned,
            result=applied.done.get(entry.device),
            error=entry.error or applied.failed.get(entry.device),
        )
        for entry in planned
    )
    record_deploy(bundle, entries, workspace=workspace, store=store)
    return entries


def needs_apply(entry: DeviceDeploy) -> bool:
    """Return whether a plan is there, is not blocked, and changes something."""
    return entry.error is None and entry.planned is not None and not entry.planned.plan.is_empty


def _blocked(planned: DeployPlan) -> EdgeqError | None:
    try:
        planned.plan.check()
    except EdgeqError as error:
        return error
    return None
