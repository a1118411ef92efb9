"""What every training starts from: the Keras model, its head, the data split, what to train towards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeq_converters.progress import Step
from edgeq_converters.training.common import keras_graph, loop, losses, training_data
from edgeq_converters.training.common.heads import Head, head_of, require_classes
from edgeq_converters.training.common.training_data import LabelledData, Split


class TrainingJob(Protocol):
    """What pruning and tuning are both told about training."""

    @property
    def training(self) -> Path | None: ...
    @property
    def validation(self) -> Path | None: ...
    @property
    def distill(self) -> bool: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model that can be trained.

    Attributes:
        model: as it was loaded; the targets of a distillation are its outputs.
        loss: by labels, or towards the targets of a distillation.
    """

    model: Any
    head: Head
    data: Split
    distill: bool
    loss: losses.Loss

    def targets(self, data: LabelledData) -> list[npt.NDArray[Any]]:
        """Return what the loss compares the outputs on some data with, while the model is as it was."""
        if self.distill:
            return loop.predict(self.model, data)
        if data.labels is None:
            raise TypeError("labels were checked before")
        return [data.labels]

    def classes(self, outputs: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64] | None:
        """Return the classes that outputs choose; None where the head has none."""
        return None if self.head is Head.VALUES else np.argmax(outputs[0], axis=-1)


def make_ready(source: Path, job: TrainingJob, *, step: Step) -> Ready:
    """Return the model of `source` with the job's data; all that is random follows from the job's seed.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss.
    """
    keras_graph.require_keras3(source)
    raw = training_data.read(job.training, job.validation)
    step("load with TensorFlow", 1)
    model = keras_graph.load(source)
    loop.reproducible(job.seed)
    head = head_of(model) if job.distill else require_classes(model, subject=str(source))
    classes = 0 if head is Head.VALUES else int(model.outputs[0].shape[-1])
    data = training_data.split(raw, model, labels_needed=not job.distill, classes=classes, seed=job.seed)
    loss = losses.by_teacher(head) if job.distill else losses.by_labels(head)
    return Ready(model=model, head=head, data=data, distill=job.distill, loss=loss)
