"""Find the kernels of several models by one deployment: as independent parts of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.benchmark.result import BenchResult
from edgeq.benchmark.trial import deploy_trial
from edgeq.bundle import make_bundle
from edgeq.converters_client import worker_session
from edgeq.errors import HealthCheckFailed
from edgeq.store import UNRECORDED
from edgeq.values import Device
from edgeq_converters.values import Kernel
from edgeq_converters.worker.protocol import MergeJob, ProbeModel

LARGEST = 12
"""Models of a group: with more, one inference takes long, and the device's time limit passes."""
SERVED_AS = "edgeq-kernels"
_SAMPLES = 32
_ATOL = 0.05
"""Kernels that quantize activations on their own round differently; a wrong one is off by whole values."""
_DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The kernel of a model on a device, or why it does not run there.

    Attributes:
        bench: None where nothing was timed.
    """

    kernel: Kernel
    problem: str = ""
    bench: BenchResult | None = None


def probe_groups(
    device: Device,
    models: Sequence[tuple[ProbeModel, Path]],
    *,
    workspace: Path,
    done: Callable[[int], None],
) -> Mapping[Path, Outcome]:
    """Return the kernel of each model by its file.

    A group that the device refuses, or whose kernels its agent does not report one by one, is halved. So
    each model is known on its own.

    Args:
        models: each has one output.
        done: called with the number of models that are known now.

    Raises:
        DeviceError: the device fails in another way than refusing a model.
        TransportError: the device cannot be reached.
    """
    known: dict[Path, Outcome] = {}
    left = [list(models[start : start + LARGEST]) for start in range(0, len(models), LARGEST)]
    while left:
        group = left.pop(0)
        outcomes = _kernels_of(device, group, workspace)
        if outcomes is None:
            middle = len(group) // 2
            left[:0] = [group[:middle], group[middle:]]
            continue
        known.update(zip((path for _, path in group), outcomes, strict=True))
        done(len(known))
    return known


def _kernels_of(
    device: Device, group: Sequence[tuple[ProbeModel, Path]], workspace: Path
) -> list[Outcome] | None:
    """Return the kernel of each model of a group; None where one deployment does not show it."""
    bundle = bundle_of(group)
    try:
        health = deploy_trial(device, bundle, SERVED_AS, workspace=workspace).health.document
    except HealthCheckFailed as error:
        return None if len(group) > 1 else [Outcome(kernel="none", problem=error.message)]
    if health.get("kernels") != "xnnpack":
        return [Outcome(kernel="builtin")] * len(group)
    delegated = [True] if len(group) == 1 else health.get("delegated_outputs")
    if not isinstance(delegated, list) or len(delegated) != len(group):
        return None
    return [Outcome(kernel="xnnpack" if each else "builtin") for each in delegated]


def bundle_of(group: Sequence[tuple[ProbeModel, Path]]) -> Path:
    """Write the bundle of a group of models, which are merged if there are several, and return its path."""
    first = group[0][1]
    path, prefixed = first, len(group) > 1
    if prefixed:
        path = first.with_name(f"group-{first.stem}-{len(group)}.tflite")
        job = MergeJob(models=tuple(each for _, each in group), output=path)
        with worker_session("kernels") as session:
            session.run(job, subject=path, deadline_s=_DEADLINE_S)
    data, bundle = path.with_suffix(".npz"), path.with_suffix(".eqb")
    random = np.random.default_rng(0)
    samples: dict[str, Any] = {}
    for model, file in group:
        for each in model.inputs:
            name = f"{file.stem}_{each.name}" if prefixed else each.name
            shape = (_SAMPLES * each.shape[0], *each.shape[1:])
            samples[name] = random.uniform(-1.0, 1.0, shape).astype(np.float32)
    np.savez(data, **samples)
    make_bundle(
        bundle,
        model_file=path,
        name=SERVED_AS,
        variant=path.stem,
        data=data,
        golden_samples=4,
        golden_atol=_ATOL,
        store=UNRECORDED,
    )
    return bundle
