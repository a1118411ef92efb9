"""The device side of the demo: deploy, run traffic, collect and monitor."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.bundle import Bundle
from edgeq.collector import collect
from edgeq.demo.digits import DigitSet
from edgeq.demo.result import DeployFigures, TrafficFigures
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.operations import Inferred
from edgeq.monitor import DriftVerdict, judge
from edgeq.store import Store
from edgeq.values import Device

ALPHA = 0.001
WINDOW = 25


def deploy(device: Device, bundle: Bundle, *, workspace: Path, store: Store) -> DeployFigures:
    """Deploy a bundle, record it, and plan again; the second plan must be empty."""
    outcome = deploy_one(device, bundle, workspace=workspace, store=store)
    again = plan_one(device, bundle, workspace=workspace)
    return DeployFigures(
        variant=bundle.parsed.variant,
        release=bundle.release,
        sent_bytes=outcome.sent_bytes,
        duration_s=outcome.duration_s,
        again_steps=len(again.plan.to_do),
    )


def traffic(
    device: Device, bundle: Bundle, part: DigitSet, *, x: NDArray[np.float32], store: Store
) -> tuple[TrafficFigures, DriftVerdict]:
    """Run images through the device's current model, collect its windows, and test all of them for drift."""
    payload = io.BytesIO()
    np.savez(payload, input_0=x)
    request = {"model": bundle.model, "window": WINDOW, "timeout_s": 120}
    with open_agent(device) as client:
        result = client.request(Inferred, "infer", request, payload=payload.getvalue(), deadline_s=150)
        collected = collect(client, device.name, store=store)
    windows = store.windows(model=bundle.model, device=device.name, release=bundle.release)
    verdict = judge(windows, bundle.reference, alpha=ALPHA)
    strongest = max(verdict.signals, key=lambda signal: max(signal.log10_e))
    figures = TrafficFigures(
        samples=result.samples,
        windows=collected.new,
        accuracy=float(np.mean(np.asarray(result.predicted) == part.y)),
        alarm=verdict.alarm,
        e_value=verdict.e_value,
        strongest=strongest.name,
        psi=strongest.psi,
    )
    return figures, verdict
