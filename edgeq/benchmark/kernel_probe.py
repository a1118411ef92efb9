"""Probe which kernels the runtime of this machine or of a device has, and record the table."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgeq.benchmark.kernel_groups import SERVED_AS, Outcome, bundle_of, probe_groups
from edgeq.benchmark.result import BenchResult
from edgeq.benchmark.trial import bench_bundle
from edgeq.converters_client import Progress, worker_session
from edgeq.errors import HealthCheckFailed
from edgeq.fleet.connect import open_agent
from edgeq.fleet.operations import read_status
from edgeq.kernels import KIND, KernelRow, KernelTable, class_name, record_class, to_json
from edgeq.store import Recorder, Store, recording_store
from edgeq.values import Device
from edgeq_converters.values import PROBED_OPERATIONS, WEIGHTED_OPERATIONS, Kernel, Scheme
from edgeq_converters.worker.protocol import KernelsJob, ProbeModel

THIS_MACHINE = "this machine"
SCHEMES = tuple(scheme for scheme in Scheme if scheme is not Scheme.INT8_MIXED)
DEVICE_OPERATIONS = (*WEIGHTED_OPERATIONS, "ADD", "LOGISTIC")
"""The operations of a device by default: each model is deployed, which takes some seconds."""
_ROUNDS = 9
_DEADLINE_S = 1800.0


def probe_this_machine(
    *,
    operations: Sequence[str] = PROBED_OPERATIONS,
    rounds: int = _ROUNDS,
    store: Recorder | None = None,
    on_progress: Progress | None = None,
) -> KernelTable:
    """Time a model of each operation in each scheme beside float32, one thread, and record the table.

    Args:
        rounds: in each of which every model is loaded again and runs for about 20 ms.
        store: where the table is recorded; None is the store of the default workspace, `UNRECORDED` keeps
            no record.
        on_progress: called with (step, done, total).

    Raises:
        MissingExtra: LiteRT or litert-quantizer is not installed.
        ModelError: the runtime does not run a float32 model.
    """
    with worker_session("kernels") as session, tempfile.TemporaryDirectory(prefix="edgeq-probe-") as folder:
        job = KernelsJob(folder=Path(folder), operations=tuple(operations), schemes=SCHEMES, rounds=rounds)
        result = session.run(job, subject=Path(THIS_MACHINE), deadline_s=_DEADLINE_S, on_progress=on_progress)
    table = KernelTable(
        machine=platform.machine(),
        runtime=f"ai_edge_litert {importlib.metadata.version('ai-edge-litert')}",
        source=_processor(),
        measured_on=datetime.now(UTC).date().isoformat(),
        emulated=False,
        rows=tuple(
            KernelRow(
                operation=each.operation,
                scheme=each.scheme,
                kernel=each.kernel,
                ratio=_rounded(each.ratio),
                ratio_low=_rounded(each.ratio_low),
                ratio_high=_rounded(each.ratio_high),
                problem=each.problem,
            )
            for each in result.kernels
        ),
    )
    with recording_store(store) as records:
        records.record_run(KIND, THIS_MACHINE, to_json(table))
    return table


def probe_device(
    device: Device,
    *,
    workspace: Path,
    store: Store,
    operations: Sequence[str] = DEVICE_OPERATIONS,
    emulated: bool = False,
    on_progress: Progress | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> KernelTable:
    """Deploy and benchmark a model of each operation in each scheme, and record the table of a device.

    The models are served as `edgeq-kernels`, one after the other; the last one stays. The models in use are
    untouched.

    Args:
        emulated: whether the device's processor is emulated: nothing is timed, and a deployment holds several
            models.
        on_progress: called with (step, done, total).
        say: called with a line for the user for each model that the device refuses.

    Raises:
        MissingExtra: LiteRT or litert-quantizer is not installed here.
        DeviceError: the device refuses every model, or fails otherwise.
        TransportError: the device cannot be reached.
    """
    with open_agent(device) as client:
        facts = client.facts()
    machine = class_name(facts.machine, facts.pointer_bits)
    record_class(device.name, machine, store)
    with tempfile.TemporaryDirectory(prefix="edgeq-probe-") as folder:
        with worker_session("kernels") as session:
            job = KernelsJob(folder=Path(folder), operations=tuple(operations), schemes=SCHEMES)
            result = session.run(
                job, subject=Path(device.name), deadline_s=_DEADLINE_S, on_progress=on_progress
            )
        written = [(model, model.path) for model in result.models if model.path is not None]

        def done(count: int) -> None:
            if on_progress is not None:
                on_progress("measure kernels on the device", count, len(written))

        if emulated:
            outcomes = probe_groups(device, written, workspace=workspace, done=done)
        else:
            outcomes = _bench_all(device, written, workspace, store, done)
        runtime = _runtime_of(device)
    rows = []
    base: BenchResult | None = None
    for model in result.models:
        unwritten = Outcome(kernel="none", problem=model.problem)
        outcome = unwritten if model.path is None else outcomes[model.path]
        if model.scheme is Scheme.FLOAT32:
            base = outcome.bench
        if outcome.problem:
            say(f"{device.name}: {model.operation} in {model.scheme}: {outcome.problem}")
        rows.append(_row(model, outcome, base))
    table = KernelTable(
        machine=machine,
        runtime=runtime,
        source=facts.model or device.name,
        measured_on=datetime.now(UTC).date().isoformat(),
        emulated=emulated,
        rows=tuple(rows),
    )
    store.record_run(KIND, device.name, to_json(table))
    return table


def _bench_all(
    device: Device,
    written: Sequence[tuple[ProbeModel, Path]],
    workspace: Path,
    store: Store,
    done: Callable[[int], None],
) -> Mapping[Path, Outcome]:
    """Deploy and benchmark each model alone.

    Raises:
        HealthCheckFailed: the device runs none of them.
    """
    outcomes: dict[Path, Outcome] = {}
    refused: HealthCheckFailed | None = None
    for number, each in enumerate(written, start=1):
        path, bundle = each[1], bundle_of([each])
        try:
            bench = bench_bundle(device, bundle, SERVED_AS, workspace=workspace, store=store)
        except HealthCheckFailed as error:
            refused = refused or error
            outcomes[path] = Outcome(kernel="none", problem=error.message)
        else:
            kernel: Kernel = "xnnpack" if bench.kernels == "xnnpack" else "builtin"
            outcomes[path] = Outcome(kernel=kernel, bench=bench)
        done(number)
    if refused is not None and all(each.kernel == "none" for each in outcomes.values()):
        raise refused
    return outcomes


def _runtime_of(device: Device) -> str:
    """Return module and version of the runtime that the device runs the probe on."""
    with open_agent(device) as client:
        digest = read_status(client).model(SERVED_AS).runtime
        known = next((each for each in client.facts().runtimes if each.digest == digest), None)
    return "unknown" if known is None else f"{known.module} {known.version}"


def _row(model: ProbeModel, outcome: Outcome, base: BenchResult | None) -> KernelRow:
    row = KernelRow(
        operation=model.operation,
        scheme=model.scheme,
        kernel=outcome.kernel,
        problem=outcome.problem,
        tried=model.path is not None,
    )
    if base is None or outcome.bench is None:
        return row
    latency = outcome.bench.latency
    low, high = latency.p50_ci95_ns
    base_low, base_high = base.latency.p50_ci95_ns
    return replace(
        row,
        ratio=_rounded(latency.p50_ns / max(base.latency.p50_ns, 1.0)),
        ratio_low=_rounded(low / max(base_high, 1.0)),
        ratio_high=_rounded(high / max(base_low, 1.0)),
    )


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else float(f"{ratio:.3g}")


def _processor() -> str:
    """Return the processor's name where the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.machine()
