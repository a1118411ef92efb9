"""A pruned conversion: prune, re-tune, convert; the unpruned model beside it says what pruning bought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeq_converters.errors import ConverterError
from edgeq_converters.progress import Step
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning import measured
from edgeq_converters.training.pruning.job import PruningJob
from edgeq_converters.training.pruning.request import PruningKind
from edgeq_converters.training.pruning.retuning import Retuned, retune

Done = TypeVar("Done")
Convert = Callable[[Path, Path, Path], Done]
"""(source, output, an empty folder) -> what the conversion returns."""


def convert(
    source: Path,
    output: Path,
    *,
    job: PruningJob,
    by_recipe: Convert[Done],
    to_float: Convert[Any],
    workdir: Path,
    step: Step,
) -> tuple[Done, dict[str, Any], tuple[str, ...]]:
    """Write the pruned model's .tflite to `output`.

    Args:
        by_recipe: the conversion that was asked for.
        to_float: the same source as a float32 .tflite.

    Returns:
        What `by_recipe` returned, the report (`pruning` of the JSON), and notes.

    Raises:
        ConverterError: as `retune` and the conversion; EQ308 when a pruned weight is not zero in the file.
    """
    subject = str(source)
    retuned = retune(source, job, step=step)
    tuned = workdir / "pruned.keras"
    retuned.model.save(tuned)
    try:
        done = by_recipe(tuned, output, _folder(workdir, "pruned"))
        hub = workdir / "pruned-float.tflite"
        to_float(tuned, hub, _folder(workdir, "pruned-float"))
    except ConverterError as error:
        if error.subject != str(tuned):
            raise
        raise ConverterError.from_dict({**error.to_dict(), "subject": subject}) from error
    whole = workdir / "unpruned.tflite"
    by_recipe(source, whole, _folder(workdir, "unpruned"))
    step("measure", 1)
    report = _report(job, retuned, whole.read_bytes(), output.read_bytes(), hub.read_bytes(), subject)
    return done, report, retuned.data.notes


def _folder(workdir: Path, name: str) -> Path:
    """Return an empty folder for one conversion, which starts as in a process of its own."""
    folder = workdir / f"{name}-files"
    folder.mkdir()
    keras_graph.forget_names()
    return folder


def _report(
    job: PruningJob, retuned: Retuned, whole: bytes, pruned: bytes, hub: bytes, subject: str
) -> dict[str, Any]:
    old, new = measured.sizes(whole), measured.sizes(pruned)
    before, after = measured.latencies_ns([whole, pruned], subject=subject)
    weights = {
        "before": measured.zeros(whole, subject=subject),
        "after": measured.zeros(pruned, subject=subject),
    }
    report: dict[str, Any] = {
        "kind": job.request.kind.value,
        "ratio": job.request.ratio,
        "epochs": retuned.epochs,
        "seed": job.seed,
        "distilled": job.distill,
        "layers": list(retuned.layers),
        "left": [{"layer": name, "reason": reason} for name, reason in retuned.left.items()],
        "parameters": retuned.parameters,
        "size_bytes": {"before": old["size_bytes"], "after": new["size_bytes"]},
        "compressed_bytes": {"before": old["compressed_bytes"], "after": new["compressed_bytes"]},
        "file_weights": weights,
        "latency_ns": {"before": before, "after": after},
        "speedup": before["p50"] / after["p50"],
        "accuracy": {
            **retuned.accuracy,
            "file_before": measured.accuracy(whole, retuned.data.held_out, subject=subject),
            "file_after": measured.accuracy(pruned, retuned.data.held_out, subject=subject),
            "samples": len(retuned.data.held_out),
        },
    }
    if job.request.kind is PruningKind.MAGNITUDE:
        report["zeros_kept"] = measured.require_zeros_kept(hub, pruned, subject=subject)
    elif weights["after"]["weights"] >= weights["before"]["weights"]:
        raise ConverterError("EQ316", subject, "the written file has no fewer weights than before")
    return {**report, "bought": _bought(report)}


def _bought(report: dict[str, Any]) -> str:
    """Say which of size on the wire and latency the pruning bought."""
    wire, size = report["compressed_bytes"], report["size_bytes"]
    on_the_wire = f"{wire['before'] / wire['after']:.2f}x smaller on the wire (compressed)"
    if report["kind"] == PruningKind.MAGNITUDE:
        return (
            f"size on the wire, not latency: {on_the_wire}; the file stays at {size['after']} bytes, and the "
            f"runtime treats zeros as any number ({report['speedup']:.2f}x the speed, measured)"
        )
    return (
        f"latency and size: {report['speedup']:.2f}x the speed (measured), {on_the_wire}, "
        f"the file {size['before'] / size['after']:.2f}x smaller"
    )
