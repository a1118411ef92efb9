"""Run Coral's `edgetpu_compiler`, if it is installed, and parse its operation log."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from edgeq_converters.edgetpu.values import CompilerLog, LoggedOps
from edgeq_converters.errors import ConverterError

NAME = "edgetpu_compiler"
_ROW = re.compile(r"^(?P<op>[A-Za-z][\w-]*)\s+(?P<count>\d+)\s+(?P<status>\S.*?)\s*$")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_log(text: str) -> CompilerLog:
    """Parse the output of `edgetpu_compiler -s` or its .log file, versions 2 to 16."""
    rows = [match for line in text.splitlines() if (match := _ROW.match(line)) and "Status" not in line]
    ops = tuple(LoggedOps(op=row["op"], count=int(row["count"]), status=row["status"]) for row in rows)
    on_tpu = _number(text, r"Number of operations that will run on Edge TPU:\s*(\d+)")
    on_cpu = _number(text, r"Number of operations that will run on CPU:\s*(\d+)")
    return CompilerLog(
        version=_text(text, r"Edge TPU Compiler version\s+(\S+)"),
        # The log has these counts only if an operation stays on the CPU.
        tpu_ops=sum(op.count for op in ops if op.on_tpu) if on_tpu is None else on_tpu,
        cpu_ops=sum(op.count for op in ops if not op.on_tpu) if on_cpu is None else on_cpu,
        subgraphs=_number(text, r"Number of Edge TPU subgraphs:\s*(\d+)"),
        on_chip_bytes=_bytes(text, r"On-chip memory used for caching model parameters"),
        streamed_bytes=_bytes(text, r"Off-chip memory used for streaming uncached model parameters"),
        ops=ops,
        error=_error(text),
    )


def compile_model(model: Path, folder: Path, *, deadline_s: float = 300.0) -> tuple[CompilerLog, Path] | None:
    """Compile a model into `folder`; return None if the compiler is not on PATH.

    Raises:
        ConverterError: EQ325 it failed, or wrote no model.
    """
    program = shutil.which(NAME)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-s", "-o", str(folder), str(model)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(model, f"not done within {deadline_s:g} s") from error
    except OSError as error:
        raise _failed(model, f"it cannot be started: {error.strerror}") from error
    output = done.stdout + "\n" + done.stderr
    log = parse_log(output)
    compiled = folder / f"{model.stem}_edgetpu.tflite"
    if log.error or done.returncode or not compiled.is_file():
        raise _failed(model, log.error or _last_line(output) or f"exit status {done.returncode}")
    return log, compiled


def _failed(model: Path, why: str) -> ConverterError:
    return ConverterError(
        "EQ325",
        str(model),
        f"edgetpu_compiler failed ({why})",
        expected="a full-integer int8 model of fixed shapes",
        hint=f"`edgeq edgetpu {model} --no-compile` shows what the Edge TPU does not support",
    )


def _error(text: str) -> str | None:
    for line in text.splitlines():
        if re.search(r"(?i)^\s*(ERROR:|Invalid model|Model not quantized|Internal compiler error)", line):
            return " ".join(line.split())[:200]
    return "Compilation failed" if re.search(r"(?i)compilation failed", text) else None


def _last_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _text(text: str, pattern: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _number(text: str, pattern: str) -> int | None:
    digits = _text(text, pattern)
    return None if digits is None else int(digits)


def _bytes(text: str, what: str) -> int | None:
    match = re.search(rf"{what}:\s*([\d.]+)\s*([KMG]iB|B)", text)
    return None if match is None else round(float(match[1]) * _UNITS[match[2]])
