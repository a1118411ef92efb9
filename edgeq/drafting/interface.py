"""Read the inputs and outputs of a source in the cheapest of the existing ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.conversion import convert
from edgeq.converters_client import ConverterError, Progress, edgeq_errors, worker_session
from edgeq.store import UNRECORDED
from edgeq_converters.sources import detect, onnx_file, onnx_interface, saved_model_interface
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.keras_config import declared_inputs
from edgeq_converters.sources.keras_outputs import declared_outputs
from edgeq_converters.sources.shapes import fixed_shape
from edgeq_converters.sources.types import SourceOptions
from edgeq_converters.values import Interface, TensorInfo
from edgeq_converters.worker.protocol import InspectJob

Shape = tuple[int, ...]
_KERAS = (SourceKind.KERAS, SourceKind.LEGACY_KERAS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInterface:
    """What goes into a model and what comes out.

    Attributes:
        inputs: batch first, without open dimensions; the batch is 1 where the source leaves it open.
        outputs: the same; -1 where the source does not say a size.
        channels_first: whether the model may take its channels before rows and columns. Data may then have
            either layout.
    """

    source: Path
    kind: SourceKind
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    channels_first: bool = False

    @property
    def batch(self) -> int:
        """How many samples the model takes in one run."""
        return max(self.inputs[0].shape[0], 1) if self.inputs and self.inputs[0].shape else 1

    def sample_of(self, tensor: TensorInfo) -> Shape:
        """Return the shape of one sample: a tensor's shape without its batch."""
        return tensor.shape[1:] if tensor.shape and tensor.shape[0] in (1, -1, self.batch) else tensor.shape

    @property
    def classes(self) -> int | None:
        """How many values the last axis of the first output has; None where the source does not say it."""
        sample = self.sample_of(self.outputs[0])
        size = sample[-1] if sample else 1
        # With channels first, the last axis of a map is its columns.
        return None if size < 0 or (self.channels_first and len(sample) > 1) else size


def read_interface(
    source: Path, *, deadline_s: float = 600.0, on_progress: Progress | None = None
) -> SourceInterface:
    """Return the inputs and outputs of a source of any kind.

    A .tflite is run once in a worker. Keras, ONNX and SavedModel files most often say it themselves. Anything
    else is converted to a float .tflite, which takes some seconds.

    Raises:
        MissingExtra: EQ104 the conversion needs a package that is not installed.
        ModelError: EQ301 to EQ306, as a conversion.
    """
    declared = declared_interface(source, deadline_s=deadline_s)
    if declared is not None:
        return declared
    with worker_session("interface") as session:
        converted = convert(
            source,
            session.workdir / "float.tflite",
            scheme="float32",
            deadline_s=deadline_s,
            on_progress=on_progress,
            store=UNRECORDED,
        )
        return SourceInterface(
            source=source, kind=detect.detect(source), inputs=converted.inputs, outputs=converted.outputs
        )


def declared_interface(source: Path, *, deadline_s: float = 600.0) -> SourceInterface | None:
    """Return what a source says about its inputs and outputs; None where only a conversion shows them.

    TensorFlow is not started.

    Raises:
        MissingExtra: EQ104 a .tflite needs LiteRT.
        ModelError: EQ301 missing, EQ302 not a model, EQ303 a .tflite that does not run, EQ304 a quantized
            one, EQ305 truncated, EQ306 open dimensions.
    """
    with edgeq_errors():
        kind = detect.detect(source)
    if kind is SourceKind.TFLITE:
        with worker_session("interface") as session:
            job = InspectJob(model=source, require_float=True)
            info = session.run(job, subject=source, deadline_s=deadline_s)
        return SourceInterface(source=source, kind=kind, inputs=info.inputs, outputs=info.outputs)
    with edgeq_errors():
        ends = _declared_ends(source, kind)
        if ends is None:
            return None
        return SourceInterface(
            source=source,
            kind=kind,
            # The first axis of a Keras input is the batch; elsewhere it may be anything.
            inputs=_fixed(source, ends.inputs, batch_is_first=kind in _KERAS),
            outputs=ends.outputs,
            channels_first=kind is SourceKind.ONNX,
        )


def _declared_ends(source: Path, kind: SourceKind) -> Interface | None:
    if kind is SourceKind.SAVED_MODEL:
        return saved_model_interface.declared(source)
    if kind is SourceKind.ONNX:
        onnx_file.require_whole(source)
        return onnx_interface.declared(source)
    if kind in _KERAS:
        inputs, outputs = declared_inputs(source, kind), declared_outputs(source, kind)
        return None if inputs is None or outputs is None else Interface(inputs=inputs, outputs=outputs)
    return None


def _fixed(source: Path, inputs: Sequence[TensorInfo], *, batch_is_first: bool) -> tuple[TensorInfo, ...]:
    """Return inputs without open dimensions.

    Raises:
        ConverterError: EQ306. Unlike `edgeq convert`, a blueprint has no place for the missing sizes.
    """
    fixed = []
    for tensor in inputs:
        sizes = [None if size < 0 else size for size in tensor.shape]
        try:
            shape = fixed_shape(
                tensor.name, sizes, SourceOptions(), batch_is_first=batch_is_first, subject=str(source)
            )
        except ConverterError as error:
            example = ",".join(
                "1" if n == 0 and s is None else "N" if s is None else str(s) for n, s in enumerate(sizes)
            )
            hint = (
                "`edgeq convert SOURCE -o FLOAT.tflite --scheme float32` with --shape "
                f"{tensor.name}={example} fixes them; then give that model"
            )
            raise ConverterError(
                error.code, error.subject, error.problem, expected=error.expected, got=error.got, hint=hint
            ) from error
        fixed.append(replace(tensor, shape=shape))
    return tuple(fixed)
