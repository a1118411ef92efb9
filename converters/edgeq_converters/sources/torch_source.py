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
from edgeq_converters.sources.shapes import fixed_shape, require_known_inputs
from edgeq_converters.sources.types import Loaded, SourceOptions

Array = npt.NDArray[Any]
_TOOLS = ("torch", "litert-torch", "litert-converter")


def load(source: Path, workdir: Path, *, options: SourceOptions) -> Loaded:
    """Return an exported program as a float .tflite; its inputs keep PyTorch's layout (channels first).

    An input with open dimensions gets the shape of the options; an open first axis is the batch, which is 1.

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
    positional, named = _example(torch, program, source, options)
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


def _example(
    torch: Any, program: Any, source: Path, options: SourceOptions
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and named example inputs, in the shapes to convert."""
    if program.example_inputs is None:
        raise ConverterError(
            "EQ306",
            str(source),
            "the .pt2 holds no example inputs, which give the shapes",
            hint="torch.export.save(torch.export.export(model.eval(), (sample,)), 'model.pt2')",
        )
    positional, named = program.example_inputs
    flat, tree = torch.utils._pytree.tree_flatten((tuple(positional), dict(named)))  # noqa: SLF001 # torch.export's own
    users = set(program.graph_signature.user_inputs)
    values = [
        (node.name, node.meta.get("val"))
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in users
    ]
    require_known_inputs(options, [name for name, _ in values], subject=str(source))
    for place, (name, value) in enumerate(values):
        if value is None or not hasattr(value, "shape") or place >= len(flat):
            continue
        sizes = [size if isinstance(size, int) else None for size in value.shape]
        fixed = fixed_shape(name, sizes, options, batch_is_first=False, subject=str(source))
        if fixed != tuple(flat[place].shape):
            flat[place] = torch.zeros(fixed, dtype=flat[place].dtype)
    positional, named = torch.utils._pytree.tree_unflatten(flat, tree)  # noqa: SLF001 # torch.export's own
    return tuple(positional), dict(named)


def _number(name: str) -> tuple[int, int]:
    """Return the sort key of an input that litert-torch named: `args_0`, ..., then keyword arguments."""
    match = re.fullmatch(r"args_(\d+)", name)
    return (0, int(match[1])) if match else (1, 0)


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
