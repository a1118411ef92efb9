"""Training setup: load the Keras model, split the data, and choose the loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files
from edgeq_converters.errors import ConverterError
from edgeq_converters.progress import Step
from edgeq_converters.training.common import custom_loss, keras_graph, loop, losses, training_data
from edgeq_converters.training.common.custom_loss import CustomLoss
from edgeq_converters.training.common.heads import Head, head_of, require_classes
from edgeq_converters.training.common.model_copy import flattened
from edgeq_converters.training.common.training_data import DataSplit, LabelledData
from edgeq_converters.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """A model ready for training.

    Attributes:
        model: as it was loaded, with the layers of nested models in its own graph. Its outputs are the
            targets of a distillation.
        loss: against labels, against the targets of a distillation, or a loss of the user's.
        custom: the loss of the user's; None without one.
    """

    model: Any
    head: Head
    data: DataSplit
    distill: bool
    loss: losses.Loss
    custom: CustomLoss | None = None

    def targets(self, data: LabelledData) -> list[npt.NDArray[Any]]:
        """Return the targets of the loss on `data`; call it before the model changes."""
        if self.distill:
            return loop.predict(self.model, data)
        if self.custom is not None:
            return [data.targets[name] for name in self.custom.targets]
        if data.labels is None:
            raise TypeError("training_data.split requires labels")
        return [data.labels]


def load_setup(
    source: Path, settings: TrainingSettings, *, step: Step, calibration: Path | None = None
) -> TrainingSetup:
    """Return the model of `source` with the data of `settings`; the seed decides everything random.

    Args:
        calibration: samples that the conversion is calibrated on; they are set apart from the held-out ones.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ339 a loss of the
            user's that cannot be used.
    """
    keras_graph.require_keras3(source)
    raw = training_data.read(settings.training, settings.validation)
    calibrating = None if calibration is None else files.read(calibration)
    step("load with TensorFlow", 1)
    # Loading seeds the model's own generators (dropout), so the seed is set before it; and again after it, so
    # that later draws do not depend on how many the loading took.
    loop.reproducible(settings.seed)
    model = keras_graph.load(source)
    loop.reproducible(settings.seed)
    inferred = not settings.distill and settings.loss is None
    head = require_classes(model, subject=str(source)) if inferred else head_of(model)
    classes = 0 if head is Head.VALUES else int(model.outputs[0].shape[-1])
    data = training_data.split(
        raw,
        training_data.inputs_of(model),
        labels_needed=inferred,
        classes=classes,
        seed=settings.seed,
        outputs=() if settings.loss is None else keras_graph.output_names(model),
        calibration=calibrating,
    )
    model = flattened(model)
    _require_runs(model, data.training, source)
    custom = None
    if settings.loss is not None:
        custom = custom_loss.of(settings.loss, keras_graph.output_names(model), data.training.targets)
        custom_loss.require_works(
            custom, loop.predict(model, data.training.take(np.arange(2))), data.training
        )
    return TrainingSetup(
        model=model,
        head=head,
        data=data,
        distill=settings.distill,
        loss=custom or (losses.by_teacher(head) if settings.distill else losses.by_labels(head)),
        custom=custom,
    )


def _require_runs(model: Any, data: LabelledData, source: Path) -> None:
    """Check that Keras can run the model here, on one sample."""
    import tensorflow as tf

    try:
        loop.predict(model, data.take(np.arange(1)))
    except tf.errors.OpError as error:  # channels_first has no kernels on a CPU
        raise ConverterError(
            "EQ305",
            str(source),
            f"Keras cannot run the model on this machine ({' '.join(str(error.message).split())[:200]})",
            hint="channels_last has kernels on every processor; such a model can be converted, not trained",
        ) from error
