"""Job `golden`: compare the model's outputs with the host's (in a process that has the runtime)."""

from __future__ import annotations

from typing import Any

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.inference import job as jobs
from edgeq_agent.inference import model, npz, stats
from edgeq_agent.inference.job import GoldenJob, GoldenReport, HealthReport, JobContext
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.releases.manifest import GoldenTolerance
from edgeq_agent.telemetry.window_builder import WindowBuilder, load_reference
from edgeq_agent.wire import Json

_LATENCY_RUNS = 50


def run(job: GoldenJob, context: JobContext) -> Json:
    """Return the `HealthReport` of the model.

    Raises:
        AgentError: EQ504, an output differs by more than the manifest allows.
    """
    loaded = model.load(job.module, job.files.model_path, cpu_path=job.files.cpu_path)
    report, latencies, inputs = check(loaded, job)
    while len(latencies) < _LATENCY_RUNS:
        loaded = model.fresh(loaded)
        latencies.append(model.invoke(loaded, inputs, len(latencies) % len(inputs[0])))
    latencies.sort()
    return HealthReport(
        proof=jobs.GOLDEN,
        golden=report,
        latency_p95_ns=stats.percentile(latencies, 95),
        memory_peak_bytes=platforms.platform_of().peak_memory_bytes().value,
        kernels=loaded.kernels,
        delegated_outputs=model.delegated_outputs(loaded) if len(loaded.outputs) > 1 else None,
    ).to_json()


def check(loaded: model.Model, job: GoldenJob) -> tuple[GoldenReport, list[int], list[Any]]:
    """Compare a loaded model's outputs for the golden inputs with the host's.

    The samples are independent: a model that keeps state is reset before each, as it was on the host.

    Returns:
        The report, the latency of each sample in ns, and the golden inputs (samples first).

    Raises:
        AgentError: EQ504, an output differs by more than the manifest allows, or a file does not fit.
    """
    files = job.files
    try:
        golden = npz.open_npz(files.golden_path, "golden inputs")
        inputs = model.arrays(golden, "input", loaded.inputs, "golden inputs")
        outputs = model.arrays(golden, "output", loaded.outputs, "golden outputs")
    except AgentError as error:
        # The request was right; the bundle's own golden file does not fit its model.
        raise AgentError(UNHEALTHY, error.subject, error.problem, error.expected, error.got) from error
    # A reference that does not fit the model would make every later window an error: refuse it now.
    builder = WindowBuilder(load_reference(files.reference_path, loaded.classes))
    for number, (array, tensor) in enumerate(zip(inputs, loaded.inputs)):
        builder.add_input(number, model.to_real(array, tensor))
    exact = files.tolerance.runtime.matches(job.module, job.version, model.machine(), loaded.kernels)
    report, latencies = _compare(loaded, inputs, outputs, files.tolerance, exact)
    if report.mismatches:
        raise _mismatch(report)
    return report, latencies, inputs


def _compare(
    loaded: model.Model,
    inputs: list[Any],
    outputs: list[Any],
    tolerance: GoldenTolerance,
    exact: bool,
) -> tuple[GoldenReport, list[int]]:
    import numpy as np

    feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
    max_steps = 0 if exact else tolerance.max_steps
    samples = len(inputs[0])
    worst_steps, worst_error, mismatches = 0, 0.0, 0
    latencies = []
    for row in range(samples):
        loaded = model.fresh(loaded)
        latencies.append(model.invoke(loaded, feeds, row))
        for number, expected in enumerate(outputs):
            output = model.output(loaded, number)
            if output.dtype.kind in "biu":
                difference = np.abs(output.astype(np.int64) - expected[row].astype(np.int64))
                steps = int(np.max(difference, initial=0))
                worst_steps = max(worst_steps, steps)
                mismatches += steps > max_steps
            else:
                close = np.allclose(
                    output, expected[row], rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=False
                )
                mismatches += not close
                error = float(np.max(np.abs(output.astype(np.float64) - expected[row]), initial=0.0))
                # JSON has no NaN or infinity; the mismatch is counted all the same.
                worst_error = max(worst_error, error if np.isfinite(error) else 0.0)
    report = GoldenReport(
        samples=samples,
        outputs=len(outputs),
        exact=exact,
        max_steps=max_steps,
        worst_steps=worst_steps,
        worst_error=worst_error,
        mismatches=mismatches,
    )
    return report, latencies


def _mismatch(report: GoldenReport) -> AgentError:
    in_steps = report.worst_steps > 0
    return AgentError(
        UNHEALTHY,
        "golden inputs",
        f"{report.mismatches} of {report.samples * report.outputs} outputs differ from the host's",
        expected=f"at most {report.max_steps} steps" if in_steps else "within the manifest's atol and rtol",
        got=f"{report.worst_steps} steps" if in_steps else f"an error of {report.worst_error:.6g}",
        hint="the previous release still serves",
    )
