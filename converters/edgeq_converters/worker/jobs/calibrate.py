"""Calibration as a job of its own: any source and samples in, a file of mergeable histograms out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeq_converters.calibration import histogram_io, observe
from edgeq_converters.calibration.histogram_io import DataDigest, HistogramFile
from edgeq_converters.data import drift, sample_files
from edgeq_converters.data.samples import Samples, match
from edgeq_converters.graph import tflite_file, validate
from edgeq_converters.progress import Step
from edgeq_converters.quantization import integer
from edgeq_converters.sources.load import load_source, relaid
from edgeq_converters.values import Scheme


def run(job: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Do a job {source, data, output, json, against, workdir} and return what was found, as JSON types.

    Raises:
        ConverterError: EQ2xx the data or histograms, EQ3xx the model, EQ331 `against` is of another model.
    """
    source, output = Path(job["source"]), Path(job["output"])
    subject = str(source)
    raw = sample_files.read(Path(job["data"]))  # before TensorFlow is loaded: bad data is told in a second
    against = histogram_io.read(Path(job["against"])) if job["against"] else None
    loaded = load_source(source, Path(job["workdir"]), announce=lambda what: step(what, 1))
    model = tflite_file.parse(loaded.data, subject=subject)
    validate.require_sound(model, scheme=Scheme.INT8, subject=subject)
    inputs, _ = tflite_file.inputs_and_outputs(model)
    samples = match(relaid(raw, inputs, loaded), inputs)
    base = tflite_file.normalized(loaded.data, subject=subject)
    digest = integer.digest_of(base)
    if against is not None:
        histogram_io.require_model(against, digest=digest, subject=job["against"])
    advance = step("calibrate", len(samples))
    found = observe.observe(base, samples, subject=subject, advance=advance)
    kept = HistogramFile(
        model_sha256=digest,
        source_sha256=digest_of_path(source),
        inputs=_input_tensors(base, subject),
        data=(DataDigest(sha256=digest_of_samples(samples), samples=len(samples)),),
        histograms=found,
    )
    output.write_bytes(histogram_io.packed(kept, as_json=job["json"]))
    shifts = [] if against is None else _shifts(against, kept)
    notes = [*loaded.notes, *samples.notes, *integer.remarks(found), *_shift_notes(shifts, kept)]
    return {
        "notes": notes,
        "shifts": [{"tensor": s.tensor, "psi": s.psi, "outside": s.outside} for s in shifts],
    }


def digest_of_samples(samples: Samples) -> str:
    """Return the sha256 of the samples themselves: the same in a .npz, a .npy or out of a program."""
    digest = hashlib.sha256()
    for array in samples.arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digest_of_path(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _input_tensors(base: bytes, subject: str) -> tuple[str, ...]:
    graph = tflite_file.parse(base, subject=subject).subgraphs[0]
    return tuple(tflite_file.tensor_name(graph.tensors[int(index)]) for index in graph.inputs)


def _shifts(against: HistogramFile, kept: HistogramFile) -> list[drift.Shift]:
    found = [
        drift.between(name, against.histograms[name], histogram)
        for name, histogram in kept.histograms.items()
        if histogram.total and name in against.histograms and against.histograms[name].total
    ]
    return sorted(found, key=lambda entry: (entry.tensor not in kept.inputs, -entry.outside, -entry.psi))


def _shift_notes(shifts: list[drift.Shift], kept: HistogramFile) -> list[str]:
    said = []
    for entry in shifts:
        if entry.outside > drift.WORTH_SAYING and entry.tensor in kept.inputs:
            said.append(
                f"{100 * entry.outside:.1f} % of the values of input `{entry.tensor}` lie beyond what the "
                f"calibration saw (PSI {entry.psi:.2f}): the data is of another distribution"
            )
    inner = [entry for entry in shifts if entry.tensor not in kept.inputs and entry.outside > 0.01]
    if inner:
        said.append(
            f"{len(inner)} tensors inside of the model go beyond their calibrated range, most "
            f"{inner[0].tensor} with {100 * inner[0].outside:.1f} % of its values"
        )
    return said
