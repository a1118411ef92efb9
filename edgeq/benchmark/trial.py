"""Benchmark models on a device under a name of their own, so that the model in use is untouched."""

from __future__ import annotations

from pathlib import Path

from edgeq.benchmark.measure import bench
from edgeq.benchmark.result import BenchResult
from edgeq.bundle import Bundle, read_bundle
from edgeq.bundle.archive import resigned
from edgeq.bundle.signers import release_signers
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import DeployResult, deploy_device
from edgeq.fleet.trust import read_trust
from edgeq.store import Store
from edgeq.values import Device


def bench_bundle(device: Device, bundle: Path, name: str, *, workspace: Path, store: Store) -> BenchResult:
    """Deploy a bundle and benchmark its model.

    Args:
        bundle: of a model that the device is to serve as `name`. It is signed again, with a counter above
            the committed one, below which the device refuses it.

    Raises:
        DeviceError: the device refuses it, or the benchmark fails.
        TransportError: the device cannot be reached.
    """
    deploy_trial(device, bundle, name, workspace=workspace)
    with open_agent(device) as client:
        return bench(client, name, device=device.name, store=store)


def deploy_trial(device: Device, bundle: Path, name: str, *, workspace: Path) -> DeployResult:
    """Deploy a bundle whose model is served as `name`; arguments and errors as for `bench_bundle`."""
    return deploy_device(device, _next_release(device, bundle, name, workspace), workspace=workspace)


def _next_release(device: Device, path: Path, name: str, workspace: Path) -> Bundle:
    with open_agent(device) as client:
        committed = read_trust(client).counters.get(name)
    counter = (committed.counter if committed else 0) + 1
    return resigned(read_bundle(path), path, counter=counter, keys=release_signers(workspace))
