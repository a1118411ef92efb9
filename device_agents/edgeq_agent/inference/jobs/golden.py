"""Job `golden`: the model gives the outputs that it gave on the host (child process only)."""

from __future__ import annotations

from typing import Any

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.inference import model, stats
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.telemetry.window_builder import WindowBuilder, load_reference

_LATENCY_RUNS = 50


def run(job: wire.Json, response: Response) -> wire.Json:
    """Return {golden: {...}, latency_p95_ns, memory_peak_bytes, kernels}.

    Raises:
        AgentError: EQ504, an output differs by more than the manifest allows.
    """
    loaded = model.load(str(job["module"]), str(job["model_path"]))
    report, latencies, inputs = check(loaded, job)
    while len(latencies) < _LATENCY_RUNS:
        latencies.append(model.invoke(loaded, inputs, len(latencies) % len(inputs[0])))
    latencies.sort()
    return {
        "golden": report,
        "latency_p95_ns": stats.percentile(latencies, 95),
        "memory_peak_bytes": platforms.platform_of().peak_memory_bytes().value,
        "kernels": loaded.kernels,
    }


def check(loaded: model.Model, job: wire.Json) -> tuple[dict[str, Any], list[int], list[Any]]:
    """Return (report, latencies in ns, golden inputs) of a loaded model that gives its golden outputs.

    Raises:
        AgentError: EQ504, an output differs by more than the manifest allows, or a file does not fit.
    """
    spec: dict[str, Any] = job["golden"]
    try:
        golden = model.open_npz(str(job["golden_path"]), "golden inputs")
        inputs = model.arrays(golden, "input", loaded.inputs, "golden inputs")
        wanted = model.arrays(golden, "output", loaded.outputs, "golden outputs")
    except AgentError as error:
        # The request was right; the bundle's own golden file does not fit its model.
        raise AgentError(UNHEALTHY, error.subject, error.problem, error.expected, error.got) from error
    # A reference that does not fit would make every later window an error: refuse it now.
    builder = WindowBuilder(load_reference(job["reference_path"], loaded.classes))
    for number, (array, tensor) in enumerate(zip(inputs, loaded.inputs)):
        builder.add_input(number, model.to_real(array, tensor))
    exact = _same_runtime(job, loaded.kernels)
    report: dict[str, Any] = {
        "samples": len(inputs[0]),
        "outputs": len(wanted),
        "exact": exact,
        "max_steps": 0 if exact else int(spec["max_steps"]),
        "worst_steps": 0,
        "worst_error": 0.0,
        "mismatches": 0,
    }
    latencies = _compare(loaded, inputs, wanted, spec, report)
    if report["mismatches"]:
        raise _mismatch(report)
    return report, latencies, inputs


def _same_runtime(job: wire.Json, kernels: str) -> bool:
    """Tell whether the golden outputs come from this very runtime and processor: then integers must be equal.

    Where the manifest names the kernels too, they must agree as well: the builtin kernels round differently.
    """
    made = job["golden"]["runtime"]
    mine = {"module": job["module"], "version": job["version"], "machine": model.machine()}
    same = all(made.get(name) == value for name, value in mine.items())
    return same and made.get("kernels", kernels) == kernels


def _compare(
    loaded: model.Model, inputs: list[Any], wanted: list[Any], spec: dict[str, Any], report: dict[str, Any]
) -> list[int]:
    import numpy as np

    feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
    atol, rtol = float(spec["atol"]), float(spec["rtol"])
    latencies = []
    for row in range(report["samples"]):
        latencies.append(model.invoke(loaded, feeds, row))
        for number, expected in enumerate(wanted):
            got = model.output(loaded, number)
            if got.dtype.kind in "biu":
                steps = int(np.max(np.abs(got.astype(np.int64) - expected[row].astype(np.int64)), initial=0))
                report["worst_steps"] = max(report["worst_steps"], steps)
                good = steps <= report["max_steps"]
            else:
                good = bool(np.allclose(got, expected[row], rtol=rtol, atol=atol, equal_nan=False))
                error = float(np.max(np.abs(got.astype(np.float64) - expected[row]), initial=0.0))
                # JSON has no NaN or infinity; the mismatch is counted all the same.
                report["worst_error"] = max(report["worst_error"], error if np.isfinite(error) else 0.0)
            report["mismatches"] += not good
    return latencies


def _mismatch(report: dict[str, Any]) -> AgentError:
    return AgentError(
        UNHEALTHY,
        "golden inputs",
        "{} of {} outputs differ from the host's".format(
            report["mismatches"], report["samples"] * report["outputs"]
        ),
        expected="at most {} steps".format(report["max_steps"])
        if report["worst_steps"]
        else "within the manifest's atol and rtol",
        got="{} steps".format(report["worst_steps"])
        if report["worst_steps"]
        else "an error of {:.6g}".format(report["worst_error"]),
        hint="the release that was there before still serves",
    )
