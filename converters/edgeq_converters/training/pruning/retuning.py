"""Prune a Keras model and re-tune it; measure the accuracy before, between and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.progress import Step
from edgeq_converters.training.common import batch_norm, loop
from edgeq_converters.training.common.setup import TrainingSetup, load_setup
from edgeq_converters.training.pruning import channel_pruning, lasso, magnitude
from edgeq_converters.training.pruning.channel_pruning import Shares
from edgeq_converters.training.pruning.report import ParameterCounts, PrunedLayer
from edgeq_converters.training.settings import PruningKind, PruningRequest, TrainingSettings

_BATCH = 32
_RATE = 1e-3
_STEPS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good outputs are on the held-out samples.

    Attributes:
        accuracy: top-1, 0..1; None without class labels.
        loss: of the user's function; None without one.
    """

    accuracy: float | None
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """A pruned and re-tuned model.

    Attributes:
        setup: the model before pruning, its data and its loss. The model's weights may have changed.
        reference: outputs of the model before pruning on the held-out samples.
        epochs: how many were trained.
        layers: channels of each pruned layer, or its weights that are not zero.
        unpruned: {layer: why it was not pruned}.
        before, pruned, tuned: before pruning, before re-tuning and after it.
    """

    model: Any
    setup: TrainingSetup
    reference: list[npt.NDArray[Any]]
    epochs: int
    layers: tuple[PrunedLayer, ...]
    unpruned: dict[str, str]
    parameters: ParameterCounts
    before: Quality
    pruned: Quality
    tuned: Quality


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
            EQ317 training diverged, EQ338 the pruned model computes something else, EQ339 the user's loss.
    """
    setup = load_setup(source, settings, step=step, calibration=calibration)
    model, data = setup.model, setup.data
    targets = setup.targets(data.training)
    reference = loop.predict(model, data.held_out)
    parameters_before = int(model.count_params())
    epochs = loop.epochs_for(len(data.training), batch=_BATCH, steps=_STEPS, requested=settings.epochs)
    phases = phases_of(request, epochs)
    fitting = _Fitting(
        setup=setup,
        targets=targets,
        advance=step("re-tune", sum(_schedule(each, settings).steps(len(data.training)) for each in phases)),
        settings=settings,
        subject=str(source),
    )
    if request.kind is PruningKind.CHANNELS:
        pruned = _prune_channels(model, request, fitting, phases)
    else:
        pruned = _prune_weights(model, request.ratio, fitting, epochs)
    return Retuned(
        model=pruned.model,
        setup=setup,
        reference=reference,
        epochs=sum(phases),
        layers=pruned.layers,
        unpruned=pruned.unpruned,
        parameters=ParameterCounts(
            before=parameters_before,
            after=int(pruned.model.count_params()),
            nonzero=sum(int(np.count_nonzero(weight)) for weight in pruned.model.get_weights()),
        ),
        before=quality(reference, setup),
        pruned=pruned.quality,
        tuned=quality(loop.predict(pruned.model, data.held_out), setup),
    )


def quality(outputs: list[npt.NDArray[Any]], setup: TrainingSetup) -> Quality:
    """Return how good outputs on the held-out samples are."""
    held_out = setup.data.held_out
    loss = None
    if setup.custom is not None:
        targets = [held_out.targets[name] for name in setup.custom.targets]
        loss = float(setup.custom.of_each(outputs, targets).mean())
    return Quality(accuracy=loop.accuracy(outputs, held_out.labels), loss=loss)


def phases_of(request: PruningRequest, epochs: int) -> list[int]:
    """Return the epochs of each training: with a lasso two for each round, before and after its pruning."""
    parts = request.trainings
    return [max(1, epochs // parts + (number < epochs % parts)) for number in range(parts)]


def _schedule(epochs: int, settings: TrainingSettings) -> loop.Schedule:
    return loop.Schedule(epochs=epochs, rate=_RATE, batch=_BATCH, seed=settings.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitting:
    """Trains a model in place on the data of a setup."""

    setup: TrainingSetup
    targets: list[npt.NDArray[Any]]
    advance: Callable[[int], None]
    settings: TrainingSettings
    subject: str

    def fit(
        self,
        model: Any,
        epochs: int,
        *,
        penalty: Callable[[], Any] | None = None,
        before_step: Callable[[int], None] = lambda _step: None,
        after_update: Callable[[], None] = lambda: None,
    ) -> None:
        """Train for a number of epochs, and then re-estimate the batch normalization.

        Args:
            penalty: added to the loss.
        """
        data, loss = self.setup.data.training, self.setup.loss

        def with_penalty(outputs: list[Any], targets: list[Any]) -> Any:
            return loss(outputs, targets) + (0.0 if penalty is None else penalty())

        loop.train(
            loop.training_call(model),
            model.trainable_variables,
            data,
            self.targets,
            loss=loss if penalty is None else with_penalty,
            schedule=_schedule(epochs, self.settings),
            subject=self.subject,
            advance=self.advance,
            before_step=before_step,
            after_update=after_update,
        )
        batch_norm.reestimate(model, data, loop.training_call(model))

    def quality_of(self, model: Any) -> Quality:
        """Return how good the model is on the held-out samples."""
        return quality(loop.predict(model, self.setup.data.held_out), self.setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pruned:
    """A re-tuned model; `quality` was measured before the last re-tuning."""

    model: Any
    quality: Quality
    layers: tuple[PrunedLayer, ...]
    unpruned: dict[str, str]


def _prune_channels(model: Any, request: PruningRequest, fitting: _Fitting, phases: list[int]) -> _Pruned:
    """Prune and re-tune in rounds, each of which removes the same part of what the one before left."""
    heads = request.ratio if request.heads is None else request.heads
    left = list(phases)
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    pruned: channel_pruning.PrunedModel | None = None
    measured: Quality | None = None
    sizes: dict[tuple[str, ...], int] = {}
    for number in range(request.rounds):
        progress = (number + 1) / request.rounds
        shares = Shares(channels=request.ratio, heads=heads, progress=progress, sizes=sizes)
        if request.lasso:
            fitting.fit(model, left.pop(0), penalty=lasso.penalty(model, request.lasso))
        pruned = channel_pruning.prune(
            model,
            shares,
            criterion=request.criterion,
            samples=fitting.setup.data.training.arrays,
            subject=fitting.subject,
        )
        model, sizes = pruned.model, sizes or pruned.sizes
        measured = fitting.quality_of(model)
        fitting.fit(model, left.pop(0))
        for name, (was, now) in pruned.layers.items():
            before.setdefault(name, was)
            after[name] = now
    if pruned is None or measured is None:
        raise TypeError("a request has at least one round")
    if not before:
        few = {", ".join(units): f"{request} removes none of {count}" for units, count in sizes.items()}
        raise channel_pruning.nothing_to_prune(fitting.subject, few)
    layers = tuple(PrunedLayer(layer=name, before=before[name], after=after[name]) for name in before)
    return _Pruned(model=model, quality=measured, layers=layers, unpruned=pruned.unpruned)


def _prune_weights(model: Any, ratio: float, fitting: _Fitting, epochs: int) -> _Pruned:
    kernels = magnitude.kernels(model)
    if not kernels.variables:
        raise channel_pruning.nothing_to_prune(fitting.subject, kernels.unpruned)
    original = model.get_weights()
    for variable in kernels.variables.values():
        weight = np.asarray(variable)
        variable.assign(weight * magnitude.mask_of(weight, ratio))
    measured = fitting.quality_of(model)
    model.set_weights(original)
    steps = _schedule(epochs, fitting.settings).steps(len(fitting.setup.data.training))
    masks = magnitude.Masks(list(kernels.variables.values()), final=ratio, total=steps)
    fitting.fit(model, epochs, before_step=masks.close, after_update=masks.apply)
    layers = tuple(
        PrunedLayer(
            layer=name,
            before=int(np.prod(variable.shape)),
            after=int(np.count_nonzero(np.asarray(variable))),
        )
        for name, variable in kernels.variables.items()
    )
    return _Pruned(model=model, quality=measured, layers=layers, unpruned=kernels.unpruned)
