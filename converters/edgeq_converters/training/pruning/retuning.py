"""Prune a Keras model and re-tune it; measure the accuracy before, between and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeq_converters.progress import Step
from edgeq_converters.training.common import batch_norm, loop
from edgeq_converters.training.common.setup import load_setup
from edgeq_converters.training.common.training_data import DataSplit
from edgeq_converters.training.pruning import channel_pruning, magnitude
from edgeq_converters.training.pruning.report import ParameterCounts, PrunedLayer
from edgeq_converters.training.settings import PruningKind, PruningRequest, TrainingSettings

_BATCH = 32
_RATE = 1e-3
_STEPS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """A pruned and re-tuned model.

    Attributes:
        reference: outputs of the model before pruning on the held-out samples.
        epochs: how many were trained.
        layers: channels of each pruned layer, or its weights that are not zero.
        unpruned: {layer: why it was not pruned}.
        accuracy_before, accuracy_pruned, accuracy_tuned: top-1 on the held-out samples before pruning, before
            re-tuning and after it, 0..1; None without labels.
    """

    model: Any
    reference: list[npt.NDArray[Any]]
    data: DataSplit
    epochs: int
    layers: tuple[PrunedLayer, ...]
    unpruned: dict[str, str]
    parameters: ParameterCounts
    accuracy_before: float | None
    accuracy_pruned: float | None
    accuracy_tuned: float | None


class Fit(Protocol):
    """Trains a model in place, and then re-estimates its batch normalization."""

    def __call__(
        self,
        model: Any,
        *,
        before_step: Callable[[int], None] = ...,
        after_update: Callable[[], None] = ...,
    ) -> None: ...


def retune(
    source: Path,
    request: PruningRequest,
    settings: TrainingSettings,
    *,
    step: Step,
    calibration: Path | None = None,
) -> Retuned:
    """Return the model of `source`, pruned and re-tuned.

    Args:
        calibration: samples that the conversion is calibrated on; they do not measure accuracy.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ316 nothing to prune,
            EQ317 training diverged.
    """
    subject = str(source)
    setup = load_setup(source, settings, step=step, calibration=calibration)
    model, data = setup.model, setup.data
    targets = setup.targets(data.training)
    reference = loop.predict(model, data.held_out)
    accuracy_before = _accuracy(model, data)
    parameters_before = int(model.count_params())
    epochs = loop.epochs_for(len(data.training), batch=_BATCH, steps=_STEPS, requested=settings.epochs)
    schedule = loop.Schedule(epochs=epochs, rate=_RATE, batch=_BATCH, seed=settings.seed)
    steps = schedule.steps(len(data.training))
    advance = step("re-tune", steps)

    def fit(
        model: Any,
        *,
        before_step: Callable[[int], None] = lambda _step: None,
        after_update: Callable[[], None] = lambda: None,
    ) -> None:
        loop.train(
            loop.training_call(model),
            model.trainable_variables,
            data.training,
            targets,
            loss=setup.loss,
            schedule=schedule,
            subject=subject,
            advance=advance,
            before_step=before_step,
            after_update=after_update,
        )
        batch_norm.reestimate(model, data.training, loop.training_call(model))

    if request.kind is PruningKind.CHANNELS:
        pruned = _prune_channels(model, request.ratio, data, subject, fit)
    else:
        pruned = _prune_weights(model, request.ratio, data, steps, subject, fit)
    return Retuned(
        model=pruned.model,
        reference=reference,
        data=data,
        epochs=epochs,
        layers=pruned.layers,
        unpruned=pruned.unpruned,
        parameters=ParameterCounts(
            before=parameters_before,
            after=int(pruned.model.count_params()),
            nonzero=sum(int(np.count_nonzero(weight)) for weight in pruned.model.get_weights()),
        ),
        accuracy_before=accuracy_before,
        accuracy_pruned=pruned.accuracy,
        accuracy_tuned=_accuracy(pruned.model, data),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pruned:
    """A re-tuned model; `accuracy` was measured before re-tuning."""

    model: Any
    accuracy: float | None
    layers: tuple[PrunedLayer, ...]
    unpruned: dict[str, str]


def _prune_channels(model: Any, ratio: float, data: DataSplit, subject: str, fit: Fit) -> _Pruned:
    pruned = channel_pruning.prune(model, ratio, subject=subject)
    accuracy = _accuracy(pruned.model, data)
    fit(pruned.model)
    layers = tuple(
        PrunedLayer(layer=name, before=before, after=after) for name, (before, after) in pruned.layers.items()
    )
    return _Pruned(model=pruned.model, accuracy=accuracy, layers=layers, unpruned=pruned.unpruned)


def _prune_weights(model: Any, ratio: float, data: DataSplit, steps: int, subject: str, fit: Fit) -> _Pruned:
    kernels = magnitude.kernels(model)
    if not kernels.variables:
        raise channel_pruning.nothing_to_prune(subject, kernels.unpruned)
    original = model.get_weights()
    for variable in kernels.variables.values():
        weight = np.asarray(variable)
        variable.assign(weight * magnitude.mask_of(weight, ratio))
    accuracy = _accuracy(model, data)
    model.set_weights(original)
    masks = magnitude.Masks(list(kernels.variables.values()), final=ratio, total=steps)
    fit(model, before_step=masks.close, after_update=masks.apply)
    layers = tuple(
        PrunedLayer(
            layer=name,
            before=int(np.prod(variable.shape)),
            after=int(np.count_nonzero(np.asarray(variable))),
        )
        for name, variable in kernels.variables.items()
    )
    return _Pruned(model=model, accuracy=accuracy, layers=layers, unpruned=kernels.unpruned)


def _accuracy(model: Any, data: DataSplit) -> float | None:
    held_out = data.held_out
    return None if held_out.labels is None else loop.accuracy(loop.predict(model, held_out), held_out.labels)
