"""Calibrate: write the histograms of a model's tensors to a file, and merge such files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.conversion.conversion import check_paths, require_writable, unwritable
from edgeq.converters_client import Progress, edgeq_errors, worker_session
from edgeq.errors import UsageError
from edgeq.files import write_atomic
from edgeq.store import Recorder, recording_store
from edgeq_converters.sources import detect
from edgeq_converters.values import TensorShift
from edgeq_converters.worker.protocol import CalibrateJob

if TYPE_CHECKING:
    from edgeq.conversion.in_memory_samples import Calibration
    from edgeq_converters.calibration.histogram_io import HistogramFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A written file of histograms.

    Attributes:
        model_sha256: of the float .tflite that they belong to.
        source_sha256: of the source that was converted to it.
        samples: number of samples.
        data: (SHA-256, number of samples) of each data set.
        ranges: {tensor: (smallest value, largest value)}.
        shifts: against an earlier calibration, inputs first; empty without one.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
    """

    path: Path
    size_bytes: int
    model_sha256: str
    source_sha256: str
    samples: int
    data: tuple[tuple[str, int], ...]
    ranges: Mapping[str, tuple[float, float]]
    shifts: tuple[TensorShift, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as `edgeq.calibrate/1`, for `--json` and the store."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "model_sha256": self.model_sha256,
            "source_sha256": self.source_sha256,
            "samples": self.samples,
            "data": [{"sha256": digest, "samples": samples} for digest, samples in self.data],
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "shifts": [asdict(shift) for shift in self.shifts],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


def calibrate(
    source: Path,
    data: Calibration,
    output: Path,
    *,
    against: Path | None = None,
    signature: str = "",
    shapes: Sequence[tuple[str, tuple[int, ...]]] = (),
    constants: Sequence[tuple[str, float]] = (),
    states: Sequence[tuple[str, str]] = (),
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
    store: Recorder | None = None,
) -> Calibrated:
    """Run the float model on the samples, write every tensor's histogram to `output`, and record the run.

    Args:
        source: any model that `convert` accepts.
        data: representative samples, in any form that `convert` accepts.
        output: a .npz, or a .json with the same content.
        against: histograms of an earlier calibration, to measure how far these samples are from its samples.
        signature, shapes, constants, states: what of the source to run, as in a recipe.
        on_progress: called with (step, done, total).
        deadline_s: the worker is killed after this time.
        store: where to record the run: None is the store of the default workspace, `UNRECORDED` keeps no
            record.

    Raises:
        UsageError: `output` has neither ending.
        DataError: EQ2xx, the samples or `against`.
        ModelError: EQ3xx, the model; EQ331 `against` is of another model.
        StoreError: the file was written, but the run cannot be recorded.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    as_json = _is_json(output)
    check_paths(output, source, data, against)
    with worker_session("calibrate") as session:
        from edgeq.conversion.in_memory_samples import as_file

        detect.detect(source)
        require_writable(output)
        written = session.workdir / "histograms"
        job = CalibrateJob(
            source=source,
            data=as_file(data, session.workdir),
            output=written,
            as_json=as_json,
            against=Path(against) if against else None,
            signature=signature,
            shapes=tuple(shapes),
            constants=tuple(constants),
            states=tuple(states),
            workdir=session.workdir,
        )
        result = session.run(job, subject=source, deadline_s=deadline_s, on_progress=on_progress)
        content = written.read_bytes()
        histograms = _read(written)
        _write(output, content)
    seconds = time.monotonic() - started_s
    return _recorded(
        _calibrated(
            output,
            histograms,
            len(content),
            seconds,
            shifts=result.shifts,
            notes=result.notes,
            warnings=result.warnings,
        ),
        store,
    )


def merge_calibrations(files: Sequence[Path], output: Path, *, store: Recorder | None = None) -> Calibrated:
    """Merge histograms of one model on several data sets; the result equals one pass over all of them.

    Args:
        store: where to record the run: None is the store of the default workspace, `UNRECORDED` keeps no
            record.

    Raises:
        UsageError: fewer than two files.
        DataError: EQ212, a file cannot be read, or two files share samples.
        ModelError: EQ331, they are of different models.
        StoreError: the file was written, but the run cannot be recorded.
    """
    started_s = time.monotonic()
    if len(files) < 2:
        raise UsageError("--merge", expected="two or more files of histograms", got=str(len(files)))
    output = Path(output)
    as_json = _is_json(output)
    check_paths(output, *files)
    with edgeq_errors():
        require_writable(output)
        from edgeq_converters.calibration import histogram_io

        merged = _read(Path(files[0]))
        for file in files[1:]:
            merged = histogram_io.merge(merged, _read(Path(file)), subject=str(file))
        content = histogram_io.packed(merged, as_json=as_json)
        _write(output, content)
    seconds = time.monotonic() - started_s
    return _recorded(_calibrated(output, merged, len(content), seconds), store)


def _recorded(calibrated: Calibrated, store: Recorder | None) -> Calibrated:
    with recording_store(store) as records:
        records.record_run("calibrate", calibrated.path.stem, calibrated.to_json())
    return calibrated


def _read(path: Path) -> HistogramFile:
    from edgeq_converters.calibration import histogram_io

    return histogram_io.read(path)


def _is_json(output: Path) -> bool:
    if output.suffix not in {".npz", ".json"}:
        raise UsageError(str(output), "histograms are stored as .npz or .json", hint=f"-o {output}.npz")
    return output.suffix == ".json"


def _write(output: Path, content: bytes) -> None:
    try:
        write_atomic(output, content)
    except OSError as error:
        raise unwritable(output, error.strerror or str(error)) from error


def _calibrated(
    output: Path,
    histograms: HistogramFile,
    size_bytes: int,
    seconds: float,
    *,
    shifts: tuple[TensorShift, ...] = (),
    notes: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Calibrated:
    return Calibrated(
        path=output,
        size_bytes=size_bytes,
        model_sha256=histograms.model_sha256,
        source_sha256=histograms.source_sha256,
        samples=histograms.samples,
        data=tuple((entry.sha256, entry.samples) for entry in histograms.data),
        ranges={
            name: (histogram.minimum, histogram.maximum)
            for name, histogram in histograms.histograms.items()
            if histogram.total
        },
        shifts=shifts,
        notes=notes,
        warnings=warnings,
        seconds=seconds,
    )
