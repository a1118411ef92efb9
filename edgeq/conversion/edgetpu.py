"""Edge TPU readiness of a .tflite; runs `edgetpu_compiler` if it is installed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.conversion.conversion import check_paths, require_writable, unwritable
from edgeq.converters_client import ConverterError, worker_session
from edgeq.files import write_atomic
from edgeq_converters.edgetpu.values import CompilerLog, EdgeTpuSummary, OpPlacement
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import EdgeTpuJob


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuReport:
    """Which operations of a model run on an Edge TPU.

    Attributes:
        compiler: the compiler's log; None if it was not run.
        path: the compiled model; None without one.
    """

    model: Path
    ops: tuple[OpPlacement, ...]
    summary: EdgeTpuSummary
    compiler: CompilerLog | None
    path: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as `edgeq.edgetpu/1`."""
        return {
            "model": str(self.model),
            "path": None if self.path is None else str(self.path),
            **asdict(self.summary),
            "ops": [asdict(op) for op in self.ops],
            "compiler": None if self.compiler is None else asdict(self.compiler),
        }


def edgetpu(
    model: Path, output: Path | None = None, *, compile: bool = True, deadline_s: float = 400.0
) -> EdgeTpuReport:
    """Return which operations of a .tflite run on an Edge TPU, and why others do not.

    Args:
        output: where to write the compiled model; requires edgetpu_compiler.
        compile: run edgetpu_compiler if it is on PATH.
        deadline_s: the worker is killed after this time.

    Raises:
        MissingExtra: LiteRT is not installed.
        ModelError: EQ301..EQ303 the model, EQ325 the compiler failed, or it is required and not installed.
    """
    model = Path(model)
    with worker_session("edgetpu") as session:
        detect.require_tflite(model)  # before a process is started
        if output is not None:
            check_paths(output, model)
            require_writable(output)
        compiled = session.workdir / "compiled.tflite"
        job = EdgeTpuJob(model=model, compile=compile, output=compiled)
        result = session.run(job, subject=model, deadline_s=deadline_s)
        if output is not None:
            if not compiled.is_file():
                raise ConverterError(
                    "EQ325",
                    str(model),
                    "the model is already compiled" if result.readiness.compiled else "it was not compiled",
                    expected="edgetpu_compiler on PATH",
                    hint="install it on x86-64 Linux (https://coral.ai/docs/edgetpu/compiler/)",
                )
            try:
                write_atomic(output, compiled.read_bytes())
            except OSError as error:
                raise unwritable(output, error.strerror or str(error)) from error
    return EdgeTpuReport(
        model=model,
        ops=result.readiness.ops,
        summary=result.readiness.summary(),
        compiler=result.compiler,
        path=output,
    )
