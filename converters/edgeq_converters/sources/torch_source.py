"""Convert PyTorch programs that torch.export saved (.pt2) to a float .tflite with litert-torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded

Array = npt.NDArray[Any]
_TOOLS = ("torch", "litert-torch", "litert-converter")


def load(source: Path, workdir: Path) -> Loaded:
    """Return an exported program as a float .tflite; its inputs keep PyTorch's layout (channels first).

    Raises:
        ConverterError: EQ104 the extra `torch` is not installed, EQ305 the program cannot be read or
            converted, EQ306 open shapes.
    """
    torch = _package("torch")
    litert_torch = _package("litert_torch")
    try:
        program = torch.export.load(str(source))
    except Exception as error:  # zip, JSON and pickle errors, and torch's own
        raise ConverterError(
            "EQ305",
            str(source),
            f"PyTorch cannot load the .pt2 file; another version may have written it ({_gist(error)})",
            hint="torch.export.save(torch.export.export(model.eval(), (sample,)), 'model.pt2')",
        ) from error
    positional, named = _example(program, source)
    module = program.module()
    try:
        converted = litert_torch.convert(module, positional, sample_kwargs=named or None)
        path = workdir / "from_torch.tflite"
        converted.export(str(path))
    except Exception as error:
        raise ConverterError(
            "EQ305",
            str(source),
            f"litert-torch cannot convert the model ({_gist(error)})",
            hint="export it with fixed shapes after model.eval(), and replace operations that LiteRT lacks",
        ) from error

    def reference(arrays: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with torch.no_grad():
            ordered = [given[name] for name in sorted(given, key=_number)]
            count = len(positional)
            result = module(*ordered[:count], **dict(zip(named, ordered[count:], strict=True)))
        flat, _ = torch.utils._pytree.tree_flatten(result)  # noqa: SLF001 # torch.export's own
        return {f"output_{i}": tensor.numpy() for i, tensor in enumerate(flat)}

    model = Model(data=path.read_bytes(), subject=str(source))
    return Loaded(kind=SourceKind.TORCH, model=model, reference=reference, tools=_TOOLS)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing((error.name or name).replace("_", "-"), extra="torch") from error


def _example(program: Any, source: Path) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if program.example_inputs is None:
        raise ConverterError(
            "EQ306",
            str(source),
            "the .pt2 holds no example inputs, which give the shapes",
            hint="torch.export.save(torch.export.export(model.eval(), (sample,)), 'model.pt2')",
        )
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" and node.name in users else None
        if value is not None and any(not isinstance(size, int) for size in value.shape):
            raise ConverterError(
                "EQ306",
                str(source),
                f"input `{node.name}` has open dimensions",
                expected="fixed sizes, batch 1",
                got=str(tuple(str(size) for size in value.shape)).replace("'", ""),
                hint="export it without dynamic_shapes, with a sample of batch 1",
            )
    positional, named = program.example_inputs
    return tuple(positional), dict(named)


def _number(name: str) -> tuple[int, int]:
    """Return the sort key of an input that litert-torch named: `args_0`, ..., then keyword arguments."""
    match = re.fullmatch(r"args_(\d+)", name)
    return (0, int(match[1])) if match else (1, 0)


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
