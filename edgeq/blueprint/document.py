"""The tables of blueprint.toml, as pydantic models: known keys, what they mean, and their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.blueprint.model import Limits, Preference, Scheme, Slice, Task, Technique
from edgeq.blueprint.quantities import Duration, Energy, File, Fraction, Name, Size, Where
from edgeq.units import limit_key
from edgeq.values import DeviceKind
from edgeq_converters.recipe import Effort


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class ModelTable(Table):
    """The trained model."""

    source: File = Field(description="The model: .keras, .h5, SavedModel, .onnx, .pt2 or float .tflite.")
    labels: tuple[str, ...] = Field(
        default=(), description="Names of the classes, in the order of the output."
    )


class DataTable(Table):
    """The data: .npz, .npy, or a folder with one subfolder of images for each class."""

    calibration: File | None = Field(
        default=None, description="Representative samples for the ranges of integer schemes, which need them."
    )
    evaluation: File = Field(description="Samples and labels that every variant is measured on.")
    training: File | None = Field(
        default=None, description="Labelled samples for pruning and quantization-aware training."
    )
    validation: File | None = Field(
        default=None,
        description="Labelled samples to measure trained models on; without them, part of `training`.",
    )


class VariantsTable(Table):
    """The variants to make."""

    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)] = Field(
        default=(Scheme.FLOAT16, Scheme.INT8), description="Number formats to try."
    )
    io: Literal["int8", "uint8", "float32"] | None = Field(
        default=None,
        description="Type of the inputs and outputs of integer variants; by default the scheme's own.",
    )


class TechniquesTable(Table):
    """The techniques that a run may use."""

    allow: tuple[Technique, ...] = Field(
        default=tuple(Technique), description="Techniques that a run may use, beside plain quantization."
    )
    effort: Effort = Field(
        default=Effort.STANDARD, description="How much each conversion tries before it chooses."
    )
    epochs: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Epochs of each training. Default: from the size of the training data."
    )


class BudgetTable(Table):
    """What a run may spend."""

    time: Duration | None = Field(
        default=None,
        description="No candidate begins later than this: a number and s, min or h; by default no limit.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="Seed of everything random.")


class SliceLimits(Table):
    accuracy_drop_max: Fraction | None = Field(
        default=None,
        description="Accuracy of the float model minus the variant's; 0.01 is one percentage point.",
    )
    accuracy_min: Fraction | None = Field(default=None, description="Accuracy of the variant.")
    agreement_min: Fraction | None = Field(
        default=None,
        description="Share of the float model's answers (classes, boxes or mask) that the variant gives.",
    )


class SliceTable(SliceLimits):
    """A part of the evaluation data with limits of its own."""

    name: Name = Field(description="Name of the slice, for messages: a-z, 0-9, `.`, `_`, `-`.")
    where: Where = Field(
        description="Condition for the samples that belong to it: a mask (`night`, `not night`), or a "
        "comparison with a column of the evaluation data (`snr_db < 5`, `room == 'kitchen'`)."
    )

    def slice(self) -> Slice:
        """Return the slice with its limits."""
        limits = Limits(
            accuracy_drop_max=self.accuracy_drop_max,
            accuracy_min=self.accuracy_min,
            agreement_min=self.agreement_min,
        )
        return Slice(name=self.name, where=self.where, limits=limits)


class RequireTable(SliceLimits):
    """The limits that a variant must meet."""

    accuracy_drop_relative_max: Fraction | None = Field(
        default=None, description="Drop of accuracy as a share of the float model's accuracy."
    )
    class_drop_max: Fraction | None = Field(
        default=None,
        description="Recall of the float model minus the variant's, of the class that loses most.",
    )
    output_sqnr_db_min: float | None = Field(
        default=None,
        description="Signal-to-quantization-noise ratio of the worst output against the float model, in dB, "
        "and there of its worst slice (a column of a detector).",
    )
    ece_max: Fraction | None = Field(
        default=None, description="Expected calibration error of the variant's probabilities."
    )
    robustness_drop_max: Fraction | None = Field(
        default=None,
        description="Accuracy of the float model minus the variant's on corrupted inputs, mean of the "
        "corruptions.",
    )
    size_max: Size | None = Field(
        default=None, description="Size of the .tflite file: a number and B, kB, MB, GB, KiB, MiB or GiB."
    )
    latency_p95_max: Duration | None = Field(
        default=None,
        description="95th percentile of one inference on the device: a number and ns, us, ms or s.",
    )
    memory_peak_max: Size | None = Field(
        default=None, description="Peak resident memory of the inference process on the device."
    )
    energy_max: Energy | None = Field(
        default=None, description="Energy of one inference on the device: a number and nJ, uJ, mJ or J."
    )

    def limits(self, raw: Mapping[str, Any]) -> Limits:
        """Return the limits; `raw` is the table as it was written."""
        keys = {entry.name: limit_key(entry.name) for entry in fields(Limits) if entry.name != "written"}
        written = {name: raw[key] for name, key in keys.items() if isinstance(raw.get(key), str)}
        values = {name: getattr(self, key) for name, key in keys.items()}
        return Limits(**values, written={name: " ".join(text.split()) for name, text in written.items()})


class DeviceTable(RequireTable):
    """Limits for one kind of device, in place of those of `[require]`."""

    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Number formats that this kind of device may get; by default all of `variants.schemes`.",
    )


class TaskTable(Table):
    """What the model does."""

    kind: Task = Field(description="What the first output means; by default guessed from outputs and labels.")


class Document(Table):
    """A model, its data, and the limits that every variant must meet."""

    schema_version: Literal[1] = Field(description="Version of the format of this file.")
    name: Name = Field(
        description="Name under which devices serve the model: a-z, 0-9, `.`, `_`, `-`, at most 64 of them."
    )
    model: ModelTable = Field(description="The trained model.")
    data: DataTable = Field(description="The data; paths are relative to this file.")
    variants: VariantsTable = Field(default_factory=VariantsTable, description="The variants to make.")
    require: RequireTable = Field(
        default_factory=RequireTable, description="The limits that a variant must meet."
    )
    device: dict[DeviceKind, DeviceTable] = Field(
        default={}, description="Limits for one kind of device each, in place of those of `[require]`."
    )
    task: TaskTable | None = Field(default=None, description="What the model does.")
    techniques: TechniquesTable = Field(
        default_factory=TechniquesTable, description="The techniques that a run may use."
    )
    budget: BudgetTable = Field(default_factory=BudgetTable, description="What a run may spend.")
    slices: tuple[SliceTable, ...] = Field(
        default=(), description="Parts of the evaluation data with limits of their own, a table for each."
    )
    prefer: Annotated[tuple[Preference, ...], Field(min_length=1)] = Field(
        default=(Preference.SIZE, Preference.ACCURACY),
        description="Order among variants that meet every limit, the most important first.",
    )
