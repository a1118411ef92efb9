"""The job `evaluate`: run models on the same samples and write their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files, labels, samples
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.sequences import in_steps, match_sequences
from edgeq_converters.edgetpu import counterpart
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import carried_states, state
from edgeq_converters.graph.interpreter import run_samples, sample_shape, with_recorded_states
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.sources import detect
from edgeq_converters.values import CarriedState, ModelInfo, notes_of, warnings_of
from edgeq_converters.worker.jobs.inspect import inspect
from edgeq_converters.worker.protocol import EvaluateJob, EvaluateResult


def run(job: EvaluateJob, step: Step) -> EvaluateResult:
    """Run every model of the job on its data and write the arrays.

    Raises:
        ConverterError: EQ2xx bad data, EQ301..303 a bad model, EQ312 inputs or outputs differ between models.
    """
    models = job.models
    if job.compiled is not None:
        detect.require_tflite(job.compiled)
        counterpart.require_counterpart(Model.read(job.compiled), Model.read(models[0]))
    raw = files.read(job.data, columns=job.columns, finite=job.finite)
    infos = tuple(inspect(model) for model in models)
    raw = _with_input_columns(raw, infos[0], finite=job.finite)
    outputs_of = [tuple(range(len(infos[0].outputs)))]
    for model, info in zip(models[1:], infos[1:], strict=True):
        outputs_of.append(_same_outputs(models[0], infos[0], model, info))
    contents = _with_states(models, infos, job.states)
    states = [[each.input for each in carried_states.read(content)] for content in contents]
    raw = in_steps(raw, infos[0].inputs, states[0])
    matched = [match_sequences(raw, info.inputs, states=own) for info, own in zip(infos, states, strict=True)]
    matched, own_values = _one_meaning(infos, matched)
    if job.sequence:
        matched = [samples.as_one_sequence(given) for given in matched]
    keep_state = [
        state.read(content).kept or bool(own) for content, own in zip(contents, states, strict=True)
    ]
    for given, keeps in zip(matched, keep_state, strict=True):
        samples.require_single_steps(given, keeps_state=keeps, subject=raw.subject)
    fed = with_recorded_states(contents[0], matched[0])
    arrays: dict[str, npt.NDArray[Any]] = {
        f"input_{i}": samples.to_model(array, tensor)
        for i, (array, tensor) in enumerate(zip(fed.arrays, infos[0].inputs, strict=True))
    }
    if raw.labels is not None and not samples.input_is_called(infos[0].inputs, files.LABELS):
        count = len(matched[0])
        if job.any_labels:
            arrays["y"] = labels.check_numbers(raw.labels, samples=count, subject=raw.subject)
        else:
            sizes = sample_shape(infos[0].outputs[0].shape, size=matched[0].batch)
            classes = sizes[-1] if sizes else 1
            arrays["y"] = labels.check_labels(raw.labels, samples=count, classes=classes, subject=raw.subject)
    arrays.update({f"column_{name}": column for name, column in raw.columns.items()})
    advance = step("run", len(matched[0]) * len(models))
    for number, content in enumerate(contents):
        outputs = run_samples(content, matched[number], advance=advance)
        arrays.update(
            {f"run_{number}_output_{i}": outputs[which] for i, which in enumerate(outputs_of[number])}
        )
    np.savez(job.arrays, **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there
    infos = tuple(
        replace(info, outputs=tuple(info.outputs[which] for which in order))
        for info, order in zip(infos, outputs_of, strict=True)
    )
    remarks = (*matched[0].notes, *own_values, *_clipping(models, infos, matched))
    return EvaluateResult(
        infos=infos,
        sequences=matched[0].sequences if any(keep_state) else None,
        notes=notes_of(remarks),
        warnings=warnings_of(remarks),
    )


def _with_input_columns(raw: RawSamples, info: ModelInfo, *, finite: bool) -> RawSamples:
    """Return the samples with the columns that are also inputs of the model among their arrays."""
    both = {
        name: column for name, column in raw.columns.items() if samples.input_is_called(info.inputs, name)
    }
    if not both:
        return raw
    return replace(raw, arrays=files.checked({**raw.arrays, **both}, subject=raw.subject, finite=finite))


def _with_states(
    paths: Sequence[Path], infos: Sequence[ModelInfo], pairs: Sequence[tuple[str, str]]
) -> list[Model]:
    """Return the models with the states that they carry in their files.

    Those of one model, by what the user or its file says or by its names, are those of the others.

    Raises:
        ConverterError: EQ341 the user names inputs or outputs that the first model does not have.
    """
    contents = [Model.read(path) for path in paths]
    known = [carried_states.carried(contents[0], pairs).states, *map(carried_states.read, contents[1:])]
    owner = next((number for number, states in enumerate(known) if states), None)
    if owner is None:
        return contents
    mine = infos[owner]
    result = []
    for content, info in zip(contents, infos, strict=True):
        inputs = order_of([t.name for t in mine.inputs], [t.name for t in info.inputs])
        outputs = order_of([t.name for t in mine.outputs], [t.name for t in info.outputs])
        states = [
            CarriedState(input=inputs[each.input], output=outputs[each.output]) for each in known[owner]
        ]
        result.append(carried_states.declared(content, states))
    return result


def _one_meaning(
    infos: Sequence[ModelInfo], matched: Sequence[samples.Samples]
) -> tuple[list[samples.Samples], list[str]]:
    """Return the samples of each model with the same real values, and notes on what was not real values.

    What one model takes for its own integers, another one with other inputs would take for real values.
    """
    arrays = [list(given.arrays) for given in matched]
    names = [[tensor.name for tensor in info.inputs] for info in infos]
    places = [order_of(names[0], each) for each in names]
    notes: dict[str, None] = {}
    for i in range(len(names[0])):
        tensors = [info.inputs[place[i]] for info, place in zip(infos, places, strict=True)]
        values = [given.arrays[place[i]] for given, place in zip(matched, places, strict=True)]
        owner = next((m for m, array in enumerate(values) if samples.is_own(array, tensors[m])), None)
        if owner is None:
            continue
        mine = tensors[owner]
        if (mine.scale, mine.zero_point or 0) != (1.0, 0):
            text = f"the values for input `{mine.name}` are {mine.dtype}: taken for the model's own integers"
            notes[f"{text}, in steps of {mine.scale:.6g}"] = None
        for m, tensor in enumerate(tensors):
            if (tensor.dtype, tensor.scale, tensor.zero_point) != (mine.dtype, mine.scale, mine.zero_point):
                arrays[m][places[m][i]] = samples.to_real(values[owner], mine)
    changed = [replace(given, arrays=tuple(each)) for given, each in zip(matched, arrays, strict=True)]
    return changed, list(notes)


def _clipping(
    models: Sequence[Path], infos: Sequence[ModelInfo], matched: Sequence[samples.Samples]
) -> list[str]:
    notes = [
        samples.clipping_caution(samples.clipped_share(array, tensor), tensor, model=str(model))
        for model, info, given in zip(models, infos, matched, strict=True)
        for array, tensor in zip(given.arrays, info.inputs, strict=True)
    ]
    return [note for note in notes if note is not None]


def _same_outputs(first: Path, one: ModelInfo, second: Path, other: ModelInfo) -> tuple[int, ...]:
    """Return which output of the second model each output of the first is compared with.

    Files of different converters may list the same names in another order, or have other names for some.

    Raises:
        ConverterError: EQ312 the models have other inputs or outputs.
    """
    inputs = order_of([tensor.name for tensor in one.inputs], [tensor.name for tensor in other.inputs])
    outputs = order_of([tensor.name for tensor in one.outputs], [tensor.name for tensor in other.outputs])
    for what, order in (("inputs", inputs), ("outputs", outputs)):
        expected = [tensor.shape for tensor in getattr(one, what)]
        got = [tensor.shape for tensor in getattr(other, what)]
        if len(expected) != len(got) or expected != [got[index] for index in order]:
            raise ConverterError(
                "EQ312",
                str(second),
                f"its {what} differ from those of {first}",
                expected=str(expected),
                got=str(got),
                hint="give the float .tflite from which the model was converted",
            )
    return outputs


def order_of(names: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    """Return the position in `others` of each name; a name that is not there takes the next free position."""
    if len(names) != len(others):
        return tuple(range(len(others)))
    free = list(range(len(others)))
    order: list[int | None] = []
    for name in names:
        same = next((position for position in free if others[position] == name), None)
        order.append(same)
        if same is not None:
            free.remove(same)
    left = iter(free)
    return tuple(next(left) if position is None else position for position in order)
