"""The client of the program that runs in onnx2tf's environment: requests, answers, and what a crash means."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import onnx_environment

Array = npt.NDArray[Any]
_PROGRAM = Path(__file__).with_name("onnx_runner.py")
_EXPORT_AGAIN = "export the model again; python -c \"import onnx; onnx.checker.check_model('MODEL.onnx')\""
_PROBLEMS = {
    "read": ("the .onnx file cannot be read ({})", _EXPORT_AGAIN),
    "invalid": ("not a valid ONNX model ({})", _EXPORT_AGAIN),
    "operators": (
        f"onnx2tf {onnx_environment.VERSION} does not know these operators: {{}}",
        "replace them before the export, or leave what comes after them out of the model",
    ),
    "convert": (
        "onnx2tf cannot convert the model ({})",
        "simplify it first (onnxsim MODEL.onnx SIMPLE.onnx), or export it with another opset (17 is usual)",
    ),
    "run": ("ONNX Runtime cannot run the model ({})", "check the shapes, or export the model again"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxInput:
    """An input of an ONNX model.

    Attributes:
        sizes: None for an open size; None in their place where the number of axes is not known.
        dtype: its name in numpy.
    """

    name: str
    sizes: tuple[int | None, ...] | None
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """What an ONNX model says about itself; `opset` is that of the standard operators."""

    inputs: tuple[OnnxInput, ...]
    opset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A float .tflite that onnx2tf wrote.

    Attributes:
        operators: how many the ONNX model has.
    """

    path: Path
    operators: int


class OnnxProcess:
    """A child process with onnx2tf and ONNX Runtime; it ends with this object.

    Args:
        source: the .onnx file of all requests.
        workdir: an empty folder for the files that go to and fro.
        announce: called with the name of a slow step before it starts.

    Raises:
        ConverterError: EQ336 the environment cannot be made.
    """

    def __init__(self, source: Path, workdir: Path, announce: Callable[[str], object]) -> None:
        interpreter = onnx_environment.made(announce)
        self._source, self._folder = source.absolute(), workdir
        workdir.mkdir()
        self._log = workdir / "onnx2tf.log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [str(interpreter), "-I", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __del__(self) -> None:
        child = getattr(self, "_child", None)
        if child is None:
            return
        for stream in (child.stdin, child.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        child.wait()

    def describe(self) -> OnnxModel:
        """Return the model's inputs and opset.

        Raises:
            ConverterError: EQ305 it cannot be read.
        """
        body = self._request("describe")
        inputs = tuple(
            OnnxInput(
                name=item["name"],
                sizes=None if item["sizes"] is None else tuple(item["sizes"]),
                dtype=item["dtype"],
            )
            for item in body["inputs"]
        )
        return OnnxModel(inputs=inputs, opset=body["opset"])

    def convert(self, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, float]) -> Converted:
        """Convert the model in fixed shapes to a float .tflite.

        Raises:
            ConverterError: EQ305 onnx2tf does not know an operator, or fails.
        """
        made = self._folder / "conversion"
        made.mkdir()
        body = self._request(
            "convert",
            shapes={name: list(sizes) for name, sizes in shapes.items()},
            constants=dict(constants),
            folder=str(made),
        )
        return Converted(path=Path(body["tflite"]), operators=body["operators"])

    def run(self, arrays: Mapping[str, Array]) -> list[Array]:
        """Return the model's outputs, computed by ONNX Runtime.

        Raises:
            ConverterError: EQ305 it cannot run the model.
        """
        given, results = self._folder / "arrays.npz", self._folder / "results.npz"
        np.savez(given, allow_pickle=False, **arrays)
        count = self._request("run", arrays=str(given), results=str(results))
        with np.load(results) as stored:
            return [stored[f"output_{i}"] for i in range(count)]

    def _request(self, do: str, **arguments: Any) -> Any:
        child = self._child
        if child.stdin is None or child.stdout is None:
            raise TypeError("the process was started without pipes")
        try:
            child.stdin.write(json.dumps({"do": do, "path": str(self._source), **arguments}) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._crash(do)
        body = json.loads(line)
        if "error" in body:
            problem, hint = _PROBLEMS[body["error"]["kind"]]
            raise ConverterError("EQ305", str(self._source), problem.format(body["error"]["text"]), hint=hint)
        return body["result"]

    def _crash(self, do: str) -> ConverterError:
        status = self._child.wait()
        ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
        return ConverterError(
            "EQ305",
            str(self._source),
            f"the process of onnx2tf ended during `{do}` ({ended}): {lines[-1][:160]}",
            hint="is the file complete? simplify it first (onnxsim MODEL.onnx SIMPLE.onnx)",
        )
