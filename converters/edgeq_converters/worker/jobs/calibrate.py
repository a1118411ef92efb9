"""The job `calibrate`: any source and samples in, a file of mergeable histograms out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from edgeq_converters.calibration import drift, histogram_io
from edgeq_converters.calibration.histogram_io import DataDigest, HistogramFile
from edgeq_converters.calibration.observe import observe
from edgeq_converters.data import files
from edgeq_converters.data.samples import NOTED_SHARE, Samples, require_single_steps
from edgeq_converters.data.sequences import match_sequences
from edgeq_converters.graph import carried_states, postprocessing, state, tflite_file, validate, variables
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import Step
from edgeq_converters.quantization.integer import histogram_cautions
from edgeq_converters.sources.load import load_source, to_tflite_layout
from edgeq_converters.sources.types import SourceOptions
from edgeq_converters.values import Caution, Scheme, TensorShift, notes_of, warnings_of
from edgeq_converters.worker.protocol import CalibrateJob, CalibrateResult
from edgeq_converters.worker.stateful_samples import matched


def run(job: CalibrateJob, step: Step) -> CalibrateResult:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data or histograms, EQ3xx the model, EQ331 `against` is of another model.
    """
    # Read the data before TensorFlow is loaded: bad data is then reported in a second, not in ten.
    raw = files.read(job.data)
    against = histogram_io.read(job.against) if job.against else None
    loaded = load_source(
        job.source,
        job.workdir,
        announce=lambda what: step(what, 1),
        options=SourceOptions(signature=job.signature, shapes=job.shapes, constants=job.constants),
        check=lambda inputs: match_sequences(
            raw,
            inputs,
            states=carried_states.possible(inputs, job.states, subject=str(job.source)),
        ),
    )
    validate.require_convertible(loaded.model, scheme=Scheme.INT8)
    carried = carried_states.carried(loaded.model, job.states)
    floating = carried_states.declared(loaded.model, carried.states)
    samples, about_samples = matched(to_tflite_layout(raw, loaded), floating)
    keeps_state = state.read(loaded.model).kept
    require_single_steps(samples, keeps_state=keeps_state, subject=str(job.data))
    detached = variables.detach(carried_states.declared(prepared(floating), carried.states))
    model = detached.model
    if detached.variables:
        samples, about_samples = matched(to_tflite_layout(raw, loaded), model, initial=detached.initial)
    digest = model.sha256
    if against is not None:
        histogram_io.require_model(against, digest=digest, subject=str(job.against))
    advance = step("calibrate", len(samples))
    histograms = observe(postprocessing.detach(model).model, samples, advance=advance)
    calibration = HistogramFile(
        model_sha256=digest,
        source_sha256=digest_of_path(job.source),
        inputs=_input_tensors(model),
        data=(DataDigest(sha256=digest_of_samples(samples), samples=len(samples)),),
        histograms=histograms,
    )
    job.output.write_bytes(histogram_io.packed(calibration, as_json=job.as_json))
    shifts = [] if against is None else _shifts(against, calibration)
    remarks = [
        *loaded.notes,
        *([carried.note] if carried.note else []),
        *about_samples,
        *samples.notes,
        *histogram_cautions(histograms),
        *_shift_cautions(shifts, calibration),
    ]
    return CalibrateResult(notes=notes_of(remarks), warnings=warnings_of(remarks), shifts=tuple(shifts))


def digest_of_samples(samples: Samples) -> str:
    """Return the SHA-256 of the sample values and their sequences; it does not depend on the file format."""
    digest = hashlib.sha256()
    if samples.begins is not None:
        digest.update(samples.begins.tobytes())
    for array in samples.arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digest_of_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names and sizes."""
    digest = hashlib.sha256()
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _input_tensors(model: Model) -> tuple[str, ...]:
    return tuple(tflite_file.tensor_name(model.graph.tensors[int(index)]) for index in model.graph.inputs)


def _shifts(against: HistogramFile, current: HistogramFile) -> list[TensorShift]:
    shifts = [
        drift.compare(name, against.histograms[name], histogram)
        for name, histogram in current.histograms.items()
        if histogram.total and name in against.histograms and against.histograms[name].total
    ]
    return sorted(shifts, key=lambda entry: (entry.tensor not in current.inputs, -entry.outside, -entry.psi))


def _shift_cautions(shifts: list[TensorShift], current: HistogramFile) -> list[str]:
    notes = []
    for entry in shifts:
        if entry.outside > NOTED_SHARE and entry.tensor in current.inputs:
            notes.append(
                f"{100 * entry.outside:.1f} % of the values of input `{entry.tensor}` lie outside the "
                f"calibrated range (PSI {entry.psi:.2f}): the data has another distribution"
            )
    inner = [entry for entry in shifts if entry.tensor not in current.inputs and entry.outside > NOTED_SHARE]
    if inner:
        notes.append(
            f"{len(inner)} tensors inside the model exceed their calibrated range, most of all "
            f"{inner[0].tensor} with {100 * inner[0].outside:.1f} % of its values"
        )
    return list(map(Caution, notes))
