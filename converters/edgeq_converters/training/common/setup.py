"""Training setup: load the Keras model, split the data, and choose the loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files
from edgeq_converters.progress import Step
from edgeq_converters.training.common import keras_graph, loop, losses, training_data
from edgeq_converters.training.common.heads import Head, head_of, require_classes
from edgeq_converters.training.common.training_data import DataSplit, LabelledData
from edgeq_converters.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """A model ready for training.

    Attributes:
        model: as it was loaded; its outputs are the targets of a distillation.
        loss: against labels, or against the targets of a distillation.
    """

    model: Any
    head: Head
    data: DataSplit
    distill: bool
    loss: losses.Loss

    def targets(self, data: LabelledData) -> list[npt.NDArray[Any]]:
        """Return the targets of the loss on `data`; call it before the model changes."""
        if self.distill:
            return loop.predict(self.model, data)
        if data.labels is None:
            raise TypeError("training_data.split requires labels")
        return [data.labels]

    def classes(self, outputs: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64] | None:
        """Return the predicted classes; None for a model without classes."""
        return None if self.head is Head.VALUES else np.argmax(outputs[0], axis=-1)


def load_setup(
    source: Path, settings: TrainingSettings, *, step: Step, calibration: Path | None = None
) -> TrainingSetup:
    """Return the model of `source` with the data of `settings`; the seed decides everything random.

    Args:
        calibration: samples that the conversion is calibrated on; they are set apart from the held-out ones.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss.
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
    head = head_of(model) if settings.distill else require_classes(model, subject=str(source))
    classes = 0 if head is Head.VALUES else int(model.outputs[0].shape[-1])
    data = training_data.split(
        raw,
        model,
        labels_needed=not settings.distill,
        classes=classes,
        seed=settings.seed,
        calibration=calibrating,
    )
    loss = losses.by_teacher(head) if settings.distill else losses.by_labels(head)
    return TrainingSetup(model=model, head=head, data=data, distill=settings.distill, loss=loss)
