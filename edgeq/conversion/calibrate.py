"""Calibration by itself: histograms taken once, kept in a file, merged with others', used by conversions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.conversion.families import ERRORS, Progress
from edgeq.errors import UsageError
from edgeq.files import write_atomic
from edgeq_converters.errors import ConverterError, translated
from edgeq_converters.sources import detect
from edgeq_converters.worker.client import run_worker

if TYPE_CHECKING:
    from edgeq.conversion.in_memory_samples import Calibration
    from edgeq_converters.calibration.histogram_io import HistogramFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShift:
    """How a tensor's values differ from those of an earlier calibration.

    Attributes:
        psi: population stability index, an effect size.
        outside: share of the values beyond what the earlier calibration saw.
    """

    tensor: str
    psi: float
    outside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A file of histograms that was written.

    Attributes:
        model_sha256: of the float .tflite that they belong to.
        ranges: {tensor: (smallest value, largest value)}.
        shifts: against an earlier calibration, inputs first; empty without one.
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
    seconds: float


def calibrate(
    source: Path,
    data: Calibration,
    output: Path,
    *,
    against: Path | None = None,
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
) -> Calibrated:
    """Run the float model over the samples and write every tensor's histogram to `output`.

    Args:
        source: any model that `convert` takes.
        data: representative samples, as `convert` takes them.
        output: a .npz, or a .json of the same content.
        against: histograms of an earlier calibration, to say how these samples differ from its.

    Raises:
        UsageError: `output` has neither ending.
        DataError: EQ2xx, the samples or `against`.
        ModelError: EQ3xx, the model; EQ331 `against` is of another.
    """
    started_s = time.monotonic()
    source, output = Path(source), Path(output)
    as_json = _is_json(output)
    with (
        translated(ERRORS),
        tempfile.TemporaryDirectory(prefix="edgeq-calibrate-", ignore_cleanup_errors=True) as folder,
    ):
        from edgeq.conversion.in_memory_samples import as_file

        workdir = Path(folder)
        detect.detect(source)
        made = workdir / "histograms"
        job = {
            "verb": "calibrate",
            "source": str(source),
            "data": str(as_file(data, workdir)),
            "output": str(made),
            "json": as_json,
            "against": str(against) if against else None,
            "workdir": str(workdir),
        }
        result = run_worker(
            job, workdir=workdir, subject=str(source), deadline_s=deadline_s, on_progress=on_progress
        )
        content = made.read_bytes()
        kept = _read(made)
        _write(output, content)
    return _calibrated(output, kept, len(content), result, time.monotonic() - started_s)


def merge_calibrations(files: Sequence[Path], output: Path) -> Calibrated:
    """Merge histograms of one model on several sets of samples: the same as one pass over all of them.

    Raises:
        UsageError: fewer than two files.
        DataError: EQ212, a file cannot be read or its samples are in another one too.
        ModelError: EQ331, they are of different models.
    """
    started_s = time.monotonic()
    if len(files) < 2:
        raise UsageError("--merge", expected="two or more files of histograms", got=str(len(files)))
    output = Path(output)
    as_json = _is_json(output)
    with translated(ERRORS):
        from edgeq_converters.calibration import histogram_io

        merged = _read(Path(files[0]))
        for file in files[1:]:
            merged = histogram_io.merge(merged, _read(Path(file)), subject=str(file))
        content = histogram_io.packed(merged, as_json=as_json)
        _write(output, content)
    return _calibrated(output, merged, len(content), {}, time.monotonic() - started_s)


def _read(path: Path) -> HistogramFile:
    from edgeq_converters.calibration import histogram_io

    return histogram_io.read(path)


def _is_json(output: Path) -> bool:
    if output.suffix not in {".npz", ".json"}:
        raise UsageError(str(output), "histograms are kept as .npz or .json", hint=f"-o {output}.npz")
    return output.suffix == ".json"


def _write(output: Path, content: bytes) -> None:
    try:
        write_atomic(output, content)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConverterError(
            "EQ311", str(output), f"cannot be written: {why}", hint="give another -o"
        ) from error


def _calibrated(
    output: Path, kept: HistogramFile, size_bytes: int, result: Mapping[str, Any], seconds: float
) -> Calibrated:
    return Calibrated(
        path=output,
        size_bytes=size_bytes,
        model_sha256=kept.model_sha256,
        source_sha256=kept.source_sha256,
        samples=kept.samples,
        data=tuple((entry.sha256, entry.samples) for entry in kept.data),
        ranges={
            name: (found.minimum, found.maximum) for name, found in kept.histograms.items() if found.total
        },
        shifts=tuple(TensorShift(**shift) for shift in result.get("shifts", ())),
        notes=tuple(result.get("notes", ())),
        seconds=seconds,
    )
