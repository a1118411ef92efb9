"""Edge TPU readiness as edgeq's users ask for it; runs `edgetpu_compiler` where it is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import DataError, MissingExtra, ModelError
from edgeq.files import write_atomic
from edgeq_converters.errors import ConverterError, translated
from edgeq_converters.worker.client import run_worker

_ERRORS: Mapping[str, Callable[..., Exception]] = {"EQ1": MissingExtra, "EQ2": DataError, "EQ3": ModelError}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuReport:
    """What an Edge TPU takes of a model.

    Attributes:
        ops: one mapping an operation: index, op, maps, on_tpu, macs, reason.
        summary: compiled, operations, maps, on_tpu, macs, macs_share, split_at, risks, page.
        compiler: what edgetpu_compiler said: version, tpu_ops, cpu_ops, subgraphs, on_chip_bytes,
            streamed_bytes, ops; None where it was not run.
        path: where the compiled model was written; None without.
    """

    ops: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    compiler: Mapping[str, Any] | None
    path: Path | None


def edgetpu(
    model: Path, output: Path | None = None, *, compile: bool = True, deadline_s: float = 400.0
) -> EdgeTpuReport:
    """Return which operations of a .tflite an Edge TPU takes, which not and why.

    Args:
        output: where to write the compiled model; needs edgetpu_compiler.
        compile: run edgetpu_compiler where it is on PATH.

    Raises:
        MissingExtra: LiteRT is not installed.
        ModelError: EQ301..EQ303 the model, EQ325 the compiler failed or is needed and not there.
    """
    model = Path(model)
    with translated(_ERRORS), tempfile.TemporaryDirectory(prefix="edgeq-edgetpu-") as folder:
        made = Path(folder) / "compiled.tflite"
        job = {"verb": "edgetpu", "model": str(model), "compile": compile, "output": str(made)}
        result = run_worker(job, workdir=Path(folder), subject=str(model), deadline_s=deadline_s)
        if output is not None:
            if not made.is_file():
                raise ConverterError(
                    "EQ325",
                    str(model),
                    "the model is compiled already"
                    if result["summary"]["compiled"]
                    else "it was not compiled",
                    expected="edgetpu_compiler on PATH",
                    hint="install it on an x86-64 Linux (https://coral.ai/docs/edgetpu/compiler/)",
                )
            write_atomic(output, made.read_bytes())
    return EdgeTpuReport(
        ops=tuple(result["readiness"]["ops"]),
        summary=result["summary"],
        compiler=result["compiler"],
        path=output,
    )
