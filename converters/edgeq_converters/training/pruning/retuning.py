"""Prunes a Keras model and re-tunes what is left; says how good the model was, became and is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq_converters.progress import Step
from edgeq_converters.training.common import batch_norm, loop
from edgeq_converters.training.common.setup import make_ready
from edgeq_converters.training.common.training_data import Split
from edgeq_converters.training.pruning import channels, magnitude
from edgeq_converters.training.pruning.job import PruningJob
from edgeq_converters.training.pruning.request import PruningKind

_BATCH = 32
_RATE = 1e-3
_STEPS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """A pruned and re-tuned model.

    Attributes:
        layers: [{layer, before, after}]: channels, or weights that are not zero.
        left: {layer: why it was left as it is}.
        parameters: before, after and, of those, not zero.
        accuracy: top-1 on the held-out samples: before, pruned (not re-tuned yet), tuned; None unlabelled.
    """

    model: Any
    data: Split
    epochs: int
    layers: tuple[dict[str, Any], ...]
    left: dict[str, str]
    parameters: dict[str, int]
    accuracy: dict[str, float | None]


def retune(source: Path, job: PruningJob, *, step: Step) -> Retuned:
    """Return the model of `source`, pruned and re-tuned.

    Raises:
        ConverterError: EQ2xx the data, EQ305, EQ306, EQ314 the model, EQ315 no loss, EQ316 nothing to prune,
            EQ317 training diverged.
    """
    subject = str(source)
    ready = make_ready(source, job, step=step)
    model, data = ready.model, ready.data
    targets = ready.targets(data.training)
    measured = _Accuracy(data)
    before = measured.of(model)
    parameters = {"before": int(model.count_params())}
    epochs = loop.epochs_for(len(data.training), batch=_BATCH, steps=_STEPS, wanted=job.epochs)
    plan = loop.Plan(epochs=epochs, rate=_RATE, batch=_BATCH, seed=job.seed)
    advance = step("re-tune", plan.steps(len(data.training)))

    def fit(what: Any, **hooks: Any) -> None:
        loop.train(
            loop.training_call(what),
            what.trainable_variables,
            data.training,
            targets,
            loss=ready.loss,
            plan=plan,
            subject=subject,
            advance=advance,
            **hooks,
        )
        batch_norm.reestimate(what, data.training, loop.training_call(what))

    prune = _channels if job.request.kind is PruningKind.CHANNELS else _weights
    done, pruned, layers, left = prune(model, job, measured, plan, len(data.training), subject, fit)
    return Retuned(
        model=done,
        data=data,
        epochs=epochs,
        layers=tuple(layers),
        left=left,
        parameters={
            **parameters,
            "after": int(done.count_params()),
            "nonzero": sum(int(np.count_nonzero(weight)) for weight in done.get_weights()),
        },
        accuracy={"before": before, "pruned": pruned, "tuned": measured.of(done)},
    )


_Pruned = tuple[Any, float | None, list[dict[str, Any]], dict[str, str]]


def _channels(
    model: Any,
    job: PruningJob,
    measured: _Accuracy,
    plan: loop.Plan,
    count: int,
    subject: str,
    fit: Callable[..., None],
) -> _Pruned:
    cut = channels.prune(model, job.request.ratio, subject=subject)
    pruned = measured.of(cut.model)
    fit(cut.model)
    layers = [{"layer": name, "before": old, "after": new} for name, (old, new) in cut.layers.items()]
    return cut.model, pruned, layers, cut.left


def _weights(
    model: Any,
    job: PruningJob,
    measured: _Accuracy,
    plan: loop.Plan,
    count: int,
    subject: str,
    fit: Callable[..., None],
) -> _Pruned:
    found = magnitude.kernels(model)
    if not found.variables:
        raise channels.nothing_to_prune(subject, found.left)
    whole = model.get_weights()
    for variable in found.variables.values():
        weight = np.asarray(variable)
        variable.assign(weight * magnitude.mask_of(weight, job.request.ratio))
    pruned = measured.of(model)
    model.set_weights(whole)
    masks = magnitude.Masks(list(found.variables.values()), final=job.request.ratio, total=plan.steps(count))
    fit(model, before_step=masks.close, after_update=masks.apply)
    layers = [
        {
            "layer": name,
            "before": int(np.prod(variable.shape)),
            "after": int(np.count_nonzero(np.asarray(variable))),
        }
        for name, variable in found.variables.items()
    ]
    return model, pruned, layers, found.left


@dataclass(frozen=True)
class _Accuracy:
    data: Split

    def of(self, model: Any) -> float | None:
        held_out = self.data.held_out
        return (
            None if held_out.labels is None else loop.accuracy(loop.predict(model, held_out), held_out.labels)
        )
