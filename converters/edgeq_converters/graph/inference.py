"""Running a .tflite on samples with LiteRT: outputs for evaluation, every tensor for calibration."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, to_model
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Advance
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]


def open_interpreter(data: bytes, *, subject: str, every_tensor: bool = False, threads: int = 1) -> Any:
    """Return an interpreter with its tensors allocated.

    Args:
        every_tensor: keep the intermediate tensors; without delegates, which would hide them.

    Raises:
        ConverterError: EQ303 when LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if every_tensor else OpResolverType.AUTO
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # preserving all tensors is meant for just this
            interpreter = Interpreter(
                model_content=data,
                num_threads=threads,
                experimental_preserve_all_tensors=every_tensor,
                experimental_op_resolver_type=resolver,
            )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise unknown_ops(subject, str(error)) or tflite_file.damaged(subject, str(error)) from error
    return interpreter


def unknown_ops(subject: str, said: str) -> ConverterError | None:
    """Return the error for a model that is whole but has operations that LiteRT does not; else None."""
    custom = re.search(r"[Uu]nresolved custom op: (\S+)", said)
    if custom:
        name = custom[1].rstrip(".")
        if name == tflite_file.EDGETPU_OP:
            return tflite_file.compiled(subject)
        return ConverterError(
            "EQ323",
            subject,
            f"the runtime does not have the custom operation {name}",
            expected="operations of .tflite itself",
            got=name,
            hint="replace the operation in the model, and convert it again without allow_custom_ops",
        )
    if "Select TensorFlow op" in said or "flex delegate" in said.lower():
        names = ", ".join(sorted(set(re.findall(r"\bFlex(\w+)", said)) - {"Delegate"}))
        return ConverterError(
            "EQ323",
            subject,
            f"the model needs TensorFlow's own operations{f' ({names})' if names else ''}, "
            "which no device runtime has",
            expected="operations of .tflite itself",
            hint="replace them in the model, and convert it again without SELECT_TF_OPS",
        )
    return None


def batches(samples: Samples, inputs: Sequence[TensorInfo]) -> Iterator[tuple[list[Array], int]]:
    """Yield (arrays in the model's types, how many samples of them are real) a batch of the model's size.

    The last batch is filled up by its last sample.
    """
    size = max(inputs[0].shape[0], 1) if inputs[0].shape else 1
    for start in range(0, len(samples), size):
        rows = [array[start : start + size] for array in samples.arrays]
        count = len(rows[0])
        if count < size:
            rows = [np.concatenate([row, np.repeat(row[-1:], size - count, axis=0)]) for row in rows]
        yield [to_model(row, tensor) for row, tensor in zip(rows, inputs, strict=True)], count


def outputs(data: bytes, samples: Samples, *, subject: str, advance: Advance) -> tuple[Array, ...]:
    """Return the model's outputs in its own types, samples first.

    Raises:
        ConverterError: EQ303, EQ306.
    """
    inputs, _ = tflite_file.inputs_and_outputs(tflite_file.parse(data, subject=subject))
    interpreter = open_interpreter(data, subject=subject)
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    targets = [detail["index"] for detail in interpreter.get_output_details()]
    gathered: list[list[Array]] = [[] for _ in targets]
    for rows, count in batches(samples, inputs):
        invoke(interpreter, sources, rows, subject=subject)
        for into, index in zip(gathered, targets, strict=True):
            into.append(np.array(interpreter.get_tensor(index))[:count])
        advance(count)
    return tuple(np.concatenate(parts) for parts in gathered)


def invoke(interpreter: Any, sources: Sequence[int], rows: Sequence[Array], *, subject: str) -> None:
    """Run one batch.

    Raises:
        ConverterError: EQ303 when the model does not run.
    """
    try:
        for index, row in zip(sources, rows, strict=True):
            interpreter.set_tensor(index, np.ascontiguousarray(row))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        short = " ".join(str(error).split())[:160]
        raise ConverterError("EQ303", subject, f"the model does not run ({short})") from error


def run_once(data: bytes, *, subject: str) -> None:
    """Run the model on zeros: a file that loads, allocates and runs is a model.

    Raises:
        ConverterError: EQ303.
    """
    interpreter = open_interpreter(data, subject=subject)
    details = interpreter.get_input_details()
    zeros = [np.zeros(detail["shape"], detail["dtype"]) for detail in details]
    invoke(interpreter, [detail["index"] for detail in details], zeros, subject=subject)
