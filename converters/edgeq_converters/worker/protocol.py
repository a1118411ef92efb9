"""The protocol between the worker process and its caller: one frozen job and one frozen result a verb.

The caller builds a job, `client.run_worker` writes it as JSON, and the worker reads it back into the same
class. The result returns the same way. Importing this module loads neither TensorFlow nor LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import TypeAdapter

from edgeq_converters.edgetpu.values import CompilerLog, EdgeTpuSummary, Readiness
from edgeq_converters.kernels import Target
from edgeq_converters.recipe import Recipe, Tail
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch
from edgeq_converters.sensitivity.values import Sensitivity
from edgeq_converters.training.loss_source import LossSource
from edgeq_converters.training.pruning.report import PruningReport
from edgeq_converters.training.qat.report import TuningReport
from edgeq_converters.training.settings import TrainingSettings
from edgeq_converters.values import (
    Claim,
    FloatPart,
    Kernel,
    ModelInfo,
    Parity,
    Scheme,
    TensorInfo,
    TensorShift,
)

Result = TypeVar("Result")
Value = TypeVar("Value")


class Job(Generic[Result]):
    """A request to the worker, answered with a `Result`.

    Attributes:
        verb: names the job in JSON and its module in `worker.jobs`.
        result: the class of the answer.
    """

    verb: ClassVar[str]
    result: ClassVar[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """The outcome of a conversion.

    Attributes:
        backend: the library that quantized, `none` for float32.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
        parity: how far the float .tflite is from the source; None where the source is a .tflite.
        pruning: None without pruning.
        claim: what the model reaches on held-out samples; None where nothing was chosen on any.
        float_part: the float operations of an integer model; None where all are integer.
        tools: {package: version} of the libraries that took part.
        tail: the last operations that got more bits by measurements of time; None without such. With it in
            the recipe, the conversion can be repeated.
    """

    info: ModelInfo
    backend: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    parity: Parity | None
    claim: Claim | None
    float_part: FloatPart | None
    edgetpu: EdgeTpuSummary
    pruning: PruningReport | None
    tools: Mapping[str, str]
    tail: Tail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertJob(Job[ConvertResult]):
    """Convert `source` by `recipe` and write `output`.

    Attributes:
        data: calibration samples; required for integer schemes unless `histograms` are given.
        histograms: written by an earlier calibration of this model.
        training, validation, loss: for re-tuning after pruning.
        strict: refuse a result that does not follow its float model.
        measure_float: time the operations of an integer model that stay float.
        target: the machine whose kernels judge the model before it is calibrated; None for no such check.
        workdir: an empty folder for the libraries' files.
    """

    verb: ClassVar[str] = "convert"
    result: ClassVar[Any] = ConvertResult

    source: Path
    output: Path
    recipe: Recipe
    data: Path | None = None
    histograms: Path | None = None
    training: Path | None = None
    validation: Path | None = None
    loss: LossSource | None = None
    strict: bool = False
    measure_float: bool = True
    target: Target | None = None
    workdir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateResult:
    """The outcome of a calibration.

    Attributes:
        shifts: against an earlier calibration, inputs first; empty without one.
    """

    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    shifts: tuple[TensorShift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateJob(Job[CalibrateResult]):
    """Write the histogram of every tensor of `source` on `data` to `output`.

    Attributes:
        as_json: write JSON instead of .npz.
        against: histograms of an earlier calibration to compare with.
        signature, shapes, constants, states: of the source, as in a recipe.
        workdir: an empty folder for the libraries' files.
    """

    verb: ClassVar[str] = "calibrate"
    result: ClassVar[Any] = CalibrateResult

    source: Path
    data: Path
    output: Path
    as_json: bool
    against: Path | None
    signature: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    constants: tuple[tuple[str, float], ...] = ()
    states: tuple[tuple[str, str], ...] = ()
    workdir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectJob(Job[ModelInfo]):
    """Describe a .tflite after one run on zeros.

    Attributes:
        require_float: refuse a model that cannot be converted because it is quantized, or has open shapes.
    """

    verb: ClassVar[str] = "inspect"
    result: ClassVar[Any] = ModelInfo

    model: Path
    require_float: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """The models that were run, in the order of the job.

    Attributes:
        sequences: how many sequences the samples were, each independent sample being one; None where no model
            keeps or carries a state.
    """

    infos: tuple[ModelInfo, ...]
    sequences: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateJob(Job[EvaluateResult]):
    """Run models on the same data and write their inputs, outputs and labels.

    Attributes:
        arrays: the .npz to write: `input_I` in the types of the first model, `run_M_output_I`, `y`, where the
            data has labels, and `column_NAME` for each of `columns`.
        sequence: the samples are one sequence, unless the data has ids of sequences.
        compiled: a model for the Edge TPU that was compiled from the first model; it is compared, not run.
        states: (input, output) by name of states that the models carry; empty for what their files say.
        columns: names of arrays of the data that say which samples belong to a slice.
        any_labels: `y` may be numbers of any type and shape, samples first; else it is integers for classes.
        finite: refuse samples with NaN and infinity.
    """

    verb: ClassVar[str] = "evaluate"
    result: ClassVar[Any] = EvaluateResult

    models: tuple[Path, ...]
    data: Path
    arrays: Path
    sequence: bool = False
    compiled: Path | None = None
    states: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    any_labels: bool = False
    finite: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityJob(Job[Sensitivity]):
    """Measure what quantizing each operation of a float .tflite costs.

    Attributes:
        calibrator: how a tensor's histogram becomes its range.
        samples: the largest number of evaluation samples to use.
        float_steps: how many of the worst operations to leave float together, one more in each step.
    """

    verb: ClassVar[str] = "sensitivity"
    result: ClassVar[Any] = Sensitivity

    model: Path
    calibration: Path
    evaluation: Path
    calibrator: str
    samples: int
    float_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRegionsJob(Job[FloatRegionSearch]):
    """Measure the SQNR of many choices of float regions of a float .tflite.

    Attributes:
        most: the largest number of choices to measure.
    """

    verb: ClassVar[str] = "float_regions"
    result: ClassVar[Any] = FloatRegionSearch

    model: Path
    calibration: Path
    calibrator: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLatency:
    """One model's latency on this machine, one thread.

    Attributes:
        p50_ns, p95_ns: medians over the rounds of each round's own percentile, so that a disturbed round does
            not count.
        low_ns, high_ns: quartiles of the rounds' medians.
        runs: number of timed inferences over all rounds.
    """

    p50_ns: int
    p95_ns: int
    low_ns: int
    high_ns: int
    runs: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyResult:
    """One latency a model, in the order of the job."""

    latencies: tuple[HostLatency, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyJob(Job[LatencyResult]):
    """Measure the latency of models in turns.

    Attributes:
        seed: of the order in each round and of the input values.
    """

    verb: ClassVar[str] = "latency"
    result: ClassVar[Any] = LatencyResult

    models: tuple[Path, ...]
    rounds: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeModel:
    """A model of one operation in one scheme.

    Attributes:
        path: None where there is no such model; `problem` says why.
        inputs: of the float model.
    """

    operation: str
    scheme: Scheme
    path: Path | None
    inputs: tuple[TensorInfo, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKernel:
    """The kernel that computes an operation in a scheme on this machine, one thread.

    Attributes:
        kernel: `xnnpack`, `optimized`, `reference` or `none`; `problem` gives the reason for `none`.
        p50_ns: latency of the model of one operation; None for `none`.
        ratio: to float32 of the same operation; low and high are quartiles over the rounds.
    """

    operation: str
    scheme: Scheme
    kernel: Kernel
    problem: str = ""
    p50_ns: int | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelsResult:
    """The models that were written, and what they showed here; empty where nothing was measured."""

    models: tuple[ProbeModel, ...]
    kernels: tuple[HostKernel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelsJob(Job[KernelsResult]):
    """Write models of one operation in each scheme, and measure their kernels on this machine.

    Attributes:
        folder: where the models are written.
        rounds: of the measurement; 0 only writes the models.
    """

    verb: ClassVar[str] = "kernels"
    result: ClassVar[Any] = KernelsResult

    folder: Path
    operations: tuple[str, ...]
    schemes: tuple[Scheme, ...]
    rounds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """The size of the model that was written."""

    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeJob(Job[MergeResult]):
    """Put models of one subgraph beside each other into one model.

    Attributes:
        models: each input and output of one is then called `<stem of its file>_<name>`.
    """

    verb: ClassVar[str] = "merge"
    result: ClassVar[Any] = MergeResult

    models: tuple[Path, ...]
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuResult:
    """Edge TPU readiness by Coral's table, and the compiler's own log.

    Attributes:
        compiler: None where edgetpu_compiler was not run.
    """

    readiness: Readiness
    compiler: CompilerLog | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuJob(Job[EdgeTpuResult]):
    """Report which operations of a .tflite run on an Edge TPU.

    Attributes:
        compile: run edgetpu_compiler if it is on PATH and the model is not compiled yet.
        output: where to copy the compiled model.
    """

    verb: ClassVar[str] = "edgetpu"
    result: ClassVar[Any] = EdgeTpuResult

    model: Path
    compile: bool
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """The outcome of a quantization-aware training; `tools` as in `ConvertResult`."""

    report: TuningReport
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob(Job[TuneResult]):
    """Train `source` with fake quantization and write `output`.

    Attributes:
        scheme: `int8`, or `int4` for weights of four bits where the runtime has kernels for them.
        workdir: an empty folder for the libraries' files.
    """

    verb: ClassVar[str] = "tune"
    result: ClassVar[Any] = TuneResult

    source: Path
    output: Path
    scheme: Scheme
    settings: TrainingSettings
    workdir: Path


JOBS: Mapping[str, type[Job[Any]]] = {
    job.verb: job
    for job in (
        ConvertJob,
        CalibrateJob,
        InspectJob,
        EvaluateJob,
        SensitivityJob,
        FloatRegionsJob,
        LatencyJob,
        KernelsJob,
        MergeJob,
        EdgeTpuJob,
        TuneJob,
    )
}


def job_to_json(job: Job[Any]) -> dict[str, Any]:
    """Return a job as JSON types."""
    return {"verb": job.verb, **to_json(job)}


def job_from_json(body: Mapping[str, Any]) -> Job[Any]:
    """Return the job written by `job_to_json`.

    Raises:
        KeyError: an unknown verb.
        ValueError: a field is missing or of another type.
    """
    job: Job[Any] = from_json(JOBS[body["verb"]], {k: v for k, v in body.items() if k != "verb"})
    return job


def to_json(value: Any) -> dict[str, Any]:
    """Return a frozen value as JSON types; an infinite figure stays a float."""
    body = _plain(asdict(value))
    if not isinstance(body, dict):
        raise TypeError("a dataclass becomes an object")
    return body


def from_json(kind: type[Value], body: Mapping[str, Any]) -> Value:
    """Return the value of a class written by `to_json`.

    Raises:
        ValueError: a field is missing or of another type.
    """
    erased: Any = kind  # functools.cache takes a Hashable, which a type variable's class is not
    value: Value = _adapter(erased).validate_python(body)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
