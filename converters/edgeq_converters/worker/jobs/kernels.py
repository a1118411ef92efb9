"""The job `kernels`: write models of one operation in each scheme, and measure their kernels here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import timing
from edgeq_converters.graph.interpreter import Interpreter, KernelSet
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.probe_models import model_of
from edgeq_converters.progress import Step
from edgeq_converters.quantization import probe_variants
from edgeq_converters.values import Kernel, Scheme
from edgeq_converters.worker.jobs import latency
from edgeq_converters.worker.protocol import HostKernel, KernelsJob, KernelsResult, ProbeModel

_ALIKE = 0.75
"""Time of a plain kernel over that of the reference kernel from which on they count as the same."""


def run(job: KernelsJob, step: Step) -> KernelsResult:
    """Do the job.

    Raises:
        ConverterError: EQ303 the runtime does not run a float32 model.
    """
    chosen = [
        (operation, scheme)
        for operation in job.operations
        for scheme in job.schemes
        if probe_variants.is_probed(operation, scheme)
    ]
    advance = step("write probe models", len(chosen))
    models: list[ProbeModel] = []
    for operation, scheme in chosen:
        model, problem = probe_variants.variant(operation, scheme)
        path = None
        if model is not None:
            path = job.folder / f"{operation.lower()}-{scheme}.tflite"
            path.write_bytes(model.data)
        models.append(
            ProbeModel(
                operation=operation,
                scheme=scheme,
                path=path,
                inputs=model_of(operation).inputs,
                problem=problem,
            )
        )
        advance(1)
    return KernelsResult(
        models=tuple(models), kernels=tuple(_measure(models, job.rounds, step)) if job.rounds else ()
    )


def _measure(models: Sequence[ProbeModel], rounds: int, step: Step) -> list[HostKernel]:
    """Return the kernel of each model, timed in turns beside float32 of the same operation."""
    advance = step("measure kernels on this machine", len(models) * rounds)
    measured = []
    for operation in dict.fromkeys(each.operation for each in models):
        mine = [each for each in models if each.operation == operation]
        runs = [each for each in mine if each.path is not None and _runs(each.path)]
        contents = [Model.read(each.path) for each in runs if each.path is not None]
        times = latency.gather(contents, [None] * len(runs), rounds=rounds, seed=0, advance=advance)
        medians = {
            each.scheme: np.array([float(median(part)) for part in by_round])
            for each, by_round in zip(runs, times, strict=True)
        }
        base = medians[Scheme.FLOAT32]
        for each in mine:
            if each.scheme not in medians:
                why = each.problem or "the runtime refuses it"
                measured.append(
                    HostKernel(operation=operation, scheme=each.scheme, kernel="none", problem=why)
                )
                continue
            ratios = medians[each.scheme] / np.maximum(base, 1.0)
            low, middle, high = (float(value) for value in np.percentile(ratios, (25, 50, 75)))
            measured.append(
                HostKernel(
                    operation=operation,
                    scheme=each.scheme,
                    kernel=_kernel(Model.read(_path(each))),
                    p50_ns=round(float(np.median(medians[each.scheme]))),
                    ratio=middle,
                    ratio_low=low,
                    ratio_high=high,
                )
            )
    return measured


def _path(model: ProbeModel) -> Path:
    if model.path is None:
        raise ValueError(f"{model.operation} in {model.scheme} has no file")
    return model.path


def _runs(path: Path) -> bool:
    try:
        interpreter = Interpreter(Model.read(path))
        interpreter.run(
            [np.full(detail["shape"], 1, np.dtype(detail["dtype"])) for detail in interpreter.inputs]
        )
    except ConverterError:
        return False  # the runtime has no kernel for it, which is the answer
    return True


def _kernel(model: Model) -> Kernel:
    """Return which kind of kernel runs a model of one operation: `xnnpack`, `optimized` or `reference`."""
    if Interpreter(model).is_delegated():
        return "xnnpack"
    plain, reference = (_once(model, kernels) for kernels in (KernelSet.PLAIN, KernelSet.REFERENCE))
    return "optimized" if plain < _ALIKE * reference else "reference"


def _once(model: Model, kernels: KernelSet) -> float:
    return float(median(timing.times_ns(model, seed=0, kernels=kernels)))
