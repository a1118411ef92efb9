"""Read, write and merge histogram files (.npz or .json), which name their model and calibration data."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.histogram import Counts, Histogram
from edgeq_converters.data import files
from edgeq_converters.errors import ConverterError

SCHEMA = "edgeq.histograms/1"
_HINT = "`edgeq calibrate MODEL --data C.npz -o H.npz` writes one"
_PARTS = ("values", "lows", "highs")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDigest:
    """One set of samples.

    Attributes:
        sha256: of the arrays' types, shapes and values, independent of the file format.
    """

    sha256: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramFile:
    """The histograms of one model on one or more sets of samples.

    Attributes:
        model_sha256: of the float .tflite that was run.
        source_sha256: of the source file or folder, for information; the source may be the .tflite itself.
        inputs: names of the model's input tensors.
    """

    model_sha256: str
    source_sha256: str
    inputs: tuple[str, ...]
    data: tuple[DataDigest, ...]
    histograms: Mapping[str, Histogram]

    @property
    def samples(self) -> int:
        """The number of samples in all sets."""
        return sum(entry.samples for entry in self.data)


def require_model(file: HistogramFile, *, digest: str, subject: str) -> None:
    """Check that histograms were taken from the float .tflite with a digest.

    Raises:
        ConverterError: EQ331 they were taken from another model.
    """
    if file.model_sha256 != digest:
        raise ConverterError(
            "EQ331",
            subject,
            "the histograms were taken from another model",
            expected=f"a float model of sha256 {digest[:12]}",
            got=file.model_sha256[:12],
            hint="run `edgeq calibrate MODEL --data C.npz -o H.npz` again",
        )


def merge(first: HistogramFile, second: HistogramFile, *, subject: str) -> HistogramFile:
    """Return the histograms over both files' samples.

    Raises:
        ConverterError: EQ331 the files are of two models, EQ212 both hold the same set of samples.
    """
    require_model(second, digest=first.model_sha256, subject=subject)
    twice = {entry.sha256 for entry in first.data} & {entry.sha256 for entry in second.data}
    if twice:
        raise ConverterError(
            "EQ212",
            subject,
            f"its data {min(twice)[:12]} is already in another file and would count twice",
            hint="give each file once",
        )
    if set(first.histograms) != set(second.histograms):
        raise ConverterError("EQ212", subject, "its tensors differ from those of the other files")
    return HistogramFile(
        model_sha256=first.model_sha256,
        source_sha256=first.source_sha256,
        inputs=first.inputs,
        data=tuple(sorted((*first.data, *second.data), key=lambda entry: entry.sha256)),
        histograms={
            name: histogram.merge(second.histograms[name]) for name, histogram in first.histograms.items()
        },
    )


def packed(file: HistogramFile, *, as_json: bool) -> bytes:
    """Return the file's bytes; the same histograms give the same bytes."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model_sha256": file.model_sha256,
        "source_sha256": file.source_sha256,
        "inputs": list(file.inputs),
        "data": [asdict(entry) for entry in file.data],
        "tensors": [_head(name, histogram) for name, histogram in sorted(file.histograms.items())],
    }
    columns = [getattr(each, part) for _, each in sorted(file.histograms.items()) for part in _PARTS]
    if as_json:
        for number, tensor in enumerate(document["tensors"]):
            for at, part in enumerate(_PARTS):
                counts = columns[number * len(_PARTS) + at]
                tensor[part] = {"keys": counts.keys.tolist(), "counts": counts.counts.tolist()}
        return json.dumps(document, separators=(",", ":")).encode()
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        document=np.frombuffer(json.dumps(document).encode(), np.uint8),
        sizes=np.array([len(column.keys) for column in columns], np.int64),
        keys=np.concatenate([np.zeros(0, np.uint16), *(column.keys for column in columns)]),
        counts=np.concatenate([np.zeros(0, np.int64), *(column.counts for column in columns)]),
    )
    return stream.getvalue()


def read(path: Path) -> HistogramFile:
    """Return the content of a histogram file.

    Raises:
        ConverterError: EQ212 the file holds no histograms, or damaged ones.
    """
    if not path.is_file():
        raise ConverterError("EQ212", str(path), "no such file", hint=_HINT)
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(2) == b"PK"
        document, columns = _read_npz(path) if is_zip else _read_json(path)
        return _unpacked(document, columns)
    except files.UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ConverterError:
    short = " ".join(str(error).split())[:120]
    return ConverterError(
        "EQ212",
        str(path),
        f"cannot be read as histograms ({short})",
        hint=_HINT,
    )


def _head(name: str, histogram: Histogram) -> dict[str, Any]:
    empty = not histogram.total
    return {
        "name": name,
        "minimum": None if empty else histogram.minimum,
        "maximum": None if empty else histogram.maximum,
        "invalid": histogram.invalid,
    }


def _read_npz(path: Path) -> tuple[Any, list[Counts]]:
    # Opened here so that it is closed when numpy fails on a broken zip.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        if "document" not in arrays.files:
            raise ValueError("no `document` in the .npz: pass samples as --data or --calibration")
        document = json.loads(arrays["document"].tobytes())
        sizes, keys, counts = arrays["sizes"], arrays["keys"], arrays["counts"]
    ends = np.cumsum(sizes)
    if len(keys) != len(counts) or (sizes < 0).any() or (len(ends) and ends[-1] != len(keys)):
        raise ValueError("its arrays do not match")
    return document, [
        _counts(keys[end - size : end], counts[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    ]


def _read_json(path: Path) -> tuple[Any, list[Counts]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"expected the schema {SCHEMA}")
    parts = [tensor[part] for tensor in document["tensors"] for part in _PARTS]
    return document, [_counts(np.array(part["keys"]), np.array(part["counts"])) for part in parts]


def _counts(keys: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Counts:
    if len(keys) and (keys.dtype.kind not in "iu" or counts.dtype.kind not in "iu"):
        raise ValueError("keys and counts must be integers")
    whole, number = keys.astype(np.int64), counts.astype(np.int64)
    if len(whole) != len(number) or (np.diff(whole) <= 0).any() or (number <= 0).any():
        raise ValueError("keys must ascend and counts be positive")
    # 0x7F80 is infinity; beyond it NaN, on both sides of the sign bit.
    if len(whole) and (whole[0] < 0 or whole[-1] > 0xFFFF or ((whole & 0x7FFF) >= 0x7F80).any()):
        raise ValueError("keys must be the upper 16 bits of finite float32 values")
    return Counts(keys=whole.astype(np.uint16), counts=number)


def _unpacked(document: Any, columns: list[Counts]) -> HistogramFile:
    if document["schema"] != SCHEMA:
        raise ValueError(f"expected the schema {SCHEMA}, got {document['schema']!r}")
    tensors = document["tensors"]
    if len(columns) != len(_PARTS) * len(tensors):
        raise ValueError("its arrays do not match its tensors")
    histograms = {}
    for number, tensor in enumerate(tensors):
        values, lows, highs = columns[number * len(_PARTS) : (number + 1) * len(_PARTS)]
        low, high = tensor["minimum"], tensor["maximum"]
        histograms[str(tensor["name"])] = Histogram(
            values=values,
            lows=lows,
            highs=highs,
            minimum=np.inf if low is None else float(low),
            maximum=-np.inf if high is None else float(high),
            invalid=int(tensor["invalid"]),
        )
    return HistogramFile(
        model_sha256=str(document["model_sha256"]),
        source_sha256=str(document["source_sha256"]),
        inputs=tuple(str(name) for name in document["inputs"]),
        data=tuple(DataDigest(sha256=str(e["sha256"]), samples=int(e["samples"])) for e in document["data"]),
        histograms=histograms,
    )
