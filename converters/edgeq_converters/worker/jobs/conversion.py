"""The conversion itself, as the worker runs it: source -> float .tflite -> scheme -> verified file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq_converters.data import sample_files
from edgeq_converters.data.sample_files import RawSamples
from edgeq_converters.data.samples import match
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, op_report, tflite_file, validate
from edgeq_converters.progress import Step
from edgeq_converters.quantization import integer, quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources import detect, parity
from edgeq_converters.sources.load import load_source, relaid
from edgeq_converters.sources.types import Loaded
from edgeq_converters.values import ModelInfo, OpKind, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        backend: which library quantized.
        notes: what the user should be told.
        parity: how far the float .tflite is from the source; None where that is the source.
        tools: packages that took part besides the usual ones.
    """

    info: ModelInfo
    backend: str
    notes: tuple[str, ...]
    parity: parity.Parity | None = None
    tools: tuple[str, ...] = ()


def convert(
    source: Path,
    output: Path,
    *,
    recipe: Recipe,
    data: Path | None,
    workdir: Path,
    step: Step,
    histograms: Path | None = None,
) -> Converted:
    """Convert `source` and write `output`; the file is read back, checked and run once.

    Args:
        data: calibration samples; needed for a scheme of integers, unless there are
        histograms: what `edgeq calibrate` kept of them.
        step: called with (what, total) when a step starts; returns a function that takes how much
            more is done.

    Raises:
        ConverterError: of any code.
    """
    scheme, io = recipe.scheme, recipe.io
    subject = str(source)
    # Data is read before TensorFlow is: bad data is told in a second, not in ten.
    raw = sample_files.read(data) if data is not None and scheme.needs_ranges else None
    loaded = load_source(source, workdir, announce=lambda what: step(what, 1))
    base = loaded.data
    model = tflite_file.parse(base, subject=subject)
    validate.require_sound(model, scheme=scheme, subject=subject)
    inference.run_once(base, subject=subject)
    notes: list[str] = [*loaded.notes]
    inputs, _ = tflite_file.inputs_and_outputs(model)
    if raw is not None:
        raw = relaid(raw, inputs, loaded)
    same = _parity(loaded, model, raw, recipe=recipe, subject=subject, step=step)
    if same is not None and (said := same.note()):
        notes.append(said)
    backend = "none" if scheme is Scheme.FLOAT32 else "litert-quantizer"
    if scheme is not Scheme.FLOAT32:
        base = tflite_file.normalized(base, subject=subject)
    # A large model is kept once: what follows works on `base` alone.
    del model
    loaded = replace(loaded, data=b"", reference=None)
    if scheme.needs_ranges:
        samples = None if raw is None else match(raw, inputs)
        made = integer.make(
            base, recipe=recipe, samples=samples, histograms=histograms, subject=subject, step=step
        )
        base, backend = made.data, made.backend
        notes.extend([*(samples.notes if samples else ()), *made.notes])
    elif scheme is not Scheme.FLOAT32:
        step("quantize", 1)
        base = quantize.quantize(base, recipe=recipe, ranges=None, subject=subject)
    output.write_bytes(base)
    info = _verify(output, scheme=scheme, io=io, subject=subject, step=step)
    notes.extend(_remarks(info, scheme))
    return Converted(info=info, backend=backend, notes=tuple(notes), parity=same, tools=loaded.tools)


def _parity(
    loaded: Loaded, model: Any, raw: RawSamples | None, *, recipe: Recipe, subject: str, step: Step
) -> parity.Parity | None:
    if loaded.reference is None:
        return None
    step("compare with the source", 1)
    inputs, outputs = tflite_file.inputs_and_outputs(model)
    samples = None if raw is None else match(raw, inputs)
    return parity.check(
        loaded.data, loaded.reference, inputs, outputs, samples=samples, seed=recipe.seed, subject=subject
    )


def _info(written: bytes, scheme: Scheme, subject: str) -> ModelInfo:
    model = tflite_file.parse(written, subject=subject)
    if scheme is Scheme.FLOAT32:
        return op_report.info(model)
    known = quantize.known_ops() | op_report.CONVERSIONS
    return op_report.info(model, unknown_ops={line.op for line in op_report.lines(model)} - known)


def _verify(output: Path, *, scheme: Scheme, io: str, subject: str, step: Step) -> ModelInfo:
    step("verify", 1)
    written = output.read_bytes()
    info = _info(written, scheme, subject)
    if scheme.full_integer:
        op_report.require_full_integer(info, io=io, subject=subject)
    try:
        inference.run_once(written, subject=subject)
    except ConverterError as error:
        raise ConverterError(
            "EQ308",
            subject,
            f"the {scheme} model that was made does not run ({error.problem})",
            hint="use --scheme float16 or float32",
        ) from error
    return info


def _remarks(info: ModelInfo, scheme: Scheme) -> list[str]:
    if scheme is Scheme.DYNAMIC and not any(line.kind is OpKind.MIXED for line in info.ops):
        return ["no operation has weights that dynamic quantization takes; the model stayed float"]
    if scheme is Scheme.FLOAT16 and not any("float16" in line.reason for line in info.ops):
        return ["no operation has weights that float16 takes; the model stayed float32"]
    return []


def inspect(path: Path) -> ModelInfo:
    """Return what a .tflite is, after it was run once.

    Raises:
        ConverterError: EQ301, EQ302, EQ303.
    """
    detect.require_tflite(path)
    data = path.read_bytes()
    model = tflite_file.parse(data, subject=str(path))
    validate.refuse_compiled(model, subject=str(path))
    info = op_report.info(model)
    inference.run_once(data, subject=str(path))
    return info
