"""The worker's verb `edgetpu`: our reading of Coral's table beside what the compiler itself says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq_converters.edgetpu import compiler, report
from edgeq_converters.graph import tflite_file
from edgeq_converters.sources import detect


def summary(path: Path) -> dict[str, Any]:
    """Return what an Edge TPU would take of a .tflite, in short."""
    return report.readiness(tflite_file.parse(path.read_bytes(), subject=str(path))).summary()


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"readiness", "summary", "compiler"} of job["model"].

    `compiler` is None where edgetpu_compiler is not on PATH, the model is compiled already, or job["compile"]
    is false. The compiled model is copied to job["output"] where that is given.

    Raises:
        ConverterError: EQ301, EQ302, EQ303, EQ325.
    """
    path = Path(job["model"])
    detect.require_tflite(path)
    found = report.readiness(tflite_file.parse(path.read_bytes(), subject=str(path)))
    said = None
    if job["compile"] and not found.compiled:
        with tempfile.TemporaryDirectory() as folder:
            made = compiler.compile_model(path, Path(folder))
            if made is not None:
                said = made[0].to_dict()
                if job["output"]:
                    shutil.copyfile(made[1], job["output"])
    return {"readiness": found.to_dict(), "summary": found.summary(), "compiler": said}
