"""Give operations that litert-quantizer leaves in float their integer form, where LiteRT has a kernel.

litert-quantizer converts with DEQUANTIZE and QUANTIZE around such an operation. Here the operation reads and
writes the integers themselves, with the same ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.calibration.qparams import INT8, INT16
from edgeq_converters.calibration.ranges import TensorRange
from edgeq_converters.graph import dead_operations, edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.quantization import int16_regions, per_axis
from edgeq_converters.quantization.backends import lookup, lstm
from edgeq_converters.quantization.backends.forms import FORMS, Form, Inputs, Outputs, Scale
from edgeq_converters.quantization.backends.lookup import Region
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Caution, Scheme

_TYPES = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}
_DTYPES = {8: np.int8, 16: np.int16}
_BITS = {"INT8": 8, "INT16": 16}
_MOST_ID = 32767
"""Largest id that CAST to int16 keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What this backend does with a float model.

    Attributes:
        model: the float model.
        regions: those that become tables.
        wide: names of the operations with 16-bit activations; None for all.
        kept: names of the operations that stay float.
    """

    model: Model
    regions: tuple[Region, ...]
    wide: frozenset[str] | None
    kept: frozenset[str]

    def bits(self, name: str) -> int:
        """Return the bits of the activations of an operation."""
        return 16 if self.wide is None or name in self.wide else 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A model with integer forms in place of float operations.

    Attributes:
        kinds: of the operations that have one.
        tables: how many tables compute the others.
        cautions: warnings about values that a kernel clips.
    """

    model: Model
    kinds: tuple[str, ...]
    tables: int
    cautions: tuple[Caution, ...]


def plan(model: Model, recipe: Recipe) -> Plan:
    """Return what this backend will do; litert-quantizer must leave its regions in float."""
    wide = None if recipe.scheme is Scheme.INT16X8 else int16_regions.operations(model, recipe)
    empty = Plan(model=model, regions=(), wide=wide, kept=frozenset(recipe.float_ops))
    tables = lookup.regions(model, bits=empty.bits, except_for=empty.kept)
    return Plan(model=model, regions=tuple(tables), wide=wide, kept=empty.kept)


def writes_every_lstm(model: Model) -> bool:
    """Return whether this backend has an integer form for each LSTM of a float model."""
    editor = GraphEditor(model.parsed)
    fused = [each for each in editor.operators if editor.kind(each).endswith("LSTM")]
    return all(editor.kind(each) in lstm.KINDS and lstm.is_plain(editor, each) for each in fused)


def complete(quantized: Model, planned: Plan, *, ranges: Mapping[str, TensorRange]) -> Completed:
    """Return the model with integer forms in place of float operations.

    An operation without an integer form, or without a range for its output, stays float.

    Args:
        quantized: by litert-quantizer; its float operations have the names of the float model.
        ranges: of every activation, and those that `lstm.inner_ranges` gives.
    """
    edited = Editor(quantized)
    completion = _Completion(
        editor=GraphEditor(edited.parsed, subject=quantized.subject), plan=planned, ranges=ranges
    )
    kinds = completion.run()
    return Completed(
        model=edited.pack() if kinds or completion.tables else quantized,
        kinds=kinds,
        tables=completion.tables,
        cautions=tuple(map(Caution, completion.cautions)),
    )


@dataclass(slots=True, kw_only=True)
class _Completion:
    editor: GraphEditor
    plan: Plan
    ranges: Mapping[str, TensorRange]
    integers: dict[tuple[int, Scale, int], int] = field(default_factory=dict)
    """(float tensor, scale, bits) -> the integer tensor with its values."""
    sources: dict[int, int] = field(default_factory=dict)
    """Float tensor -> the integer tensor that an operation computes in its place."""
    tables: int = 0
    cautions: list[str] = field(default_factory=list)

    def run(self) -> tuple[str, ...]:
        kinds: dict[str, None] = {}
        regions = {each.operations[-1]: each for each in self.plan.regions}
        inner = {name for each in self.plan.regions for name in each.operations[:-1]}
        for operator in list(self.editor.operators):
            name = tflite_file.operation_name(self.editor.graph, operator)
            kind = self.editor.kind(operator)
            if name in self.plan.kept or name in inner or not self._is_float(operator):
                continue
            if name in regions:
                done = self._tabulate(operator, regions[name])
            elif kind in lstm.KINDS:
                done = self._lstm(operator)
            elif kind == "CAST":
                done = self._cast(operator)
            else:
                form = FORMS.get(kind)
                done = form is not None and self._write(operator, form)
            if done and name in regions:
                self.tables += 1
            elif done:
                kinds[kind] = None
        if kinds or self.tables:
            self._drop_unread()
            dead_operations.drop_tensors(self.editor.parsed)
            edit.drop_unused_codes(self.editor.parsed)
        return tuple(kinds)

    def _is_float(self, operator: Any) -> bool:
        return any(
            self.editor.type_name(i) == "FLOAT32"
            for i in tflite_file.tensor_indices(operator)
            if self.editor.constant(i) is None
        )

    def _range(self, index: int, bits: int) -> Scale | None:
        """Return the scale of a float tensor's range; None where it was never filled."""
        given = self.ranges.get(self.editor.name(index))
        if given is None or given.low.size != 1:
            return None
        grid = INT16 if bits == 16 else INT8
        # Ranges for 16 bits have headroom, for which 8 bits have no room.
        room = INT16.headroom if bits == 8 and self.plan.wide is None else 1.0
        low, high = (float(each.ravel()[0]) / room for each in (given.low, given.high))
        scale, zero = grid.parameters(low, high)
        return float(np.float32(scale)), zero

    def _integer(self, index: int, bits: int, before: Any, *, scale: Scale | None = None) -> int | None:
        """Return an integer tensor with a float tensor's values; None where no scale is known.

        Args:
            scale: that it must have; None for the one that it already has, or that of its range.
        """
        source = self._source(index, before)
        if source is not None and self.editor.type_name(source) == _NAMES[bits]:
            have = tflite_file.quantization(self.editor.graph.tensors[source])
            if have is not None and (scale is None or _equal(have, scale)):
                return source
        target_scale = scale or self._range(index, bits)
        if target_scale is None:
            return None
        key = (index, target_scale, bits)
        known = self.integers.get(key)
        if known is not None:
            return known
        made = self.editor.add_tensor(f"{self.editor.name(index)}.q", self.editor.shape(index), _TYPES[bits])
        self.editor.graph.tensors[made].quantization = per_axis.scales(*target_scale)
        self.editor.insert(before, "QUANTIZE", [index if source is None else source], made)
        self.integers[key] = made
        return made

    def _source(self, index: int, before: Any) -> int | None:
        """Return an integer tensor that holds a float tensor's values before an operation runs."""
        if index in self.sources:
            return self.sources[index]
        producer = self.editor.producer(index, "DEQUANTIZE")
        if producer is not None:
            source = int(producer.inputs[0])
            return source if self.editor.type_name(source) in _BITS else None
        place = self.editor.position(before)
        for reader in self.editor.readers(index):
            if self.editor.kind(reader) == "QUANTIZE" and self.editor.position(reader) < place:
                made = int(reader.outputs[0])
                if self._holds_all(made, index):
                    return made
        return None

    def _holds_all(self, integer: int, index: int) -> bool:
        """Return whether an integer tensor has the scale of a float tensor's range.

        Another operation may have quantized it with a smaller scale, that of its own output.
        """
        bits = _BITS.get(self.editor.type_name(integer))
        pair = tflite_file.quantization(self.editor.graph.tensors[integer])
        own = None if bits is None else self._range(index, bits)
        return pair is not None and (own is None or _equal(pair, own))

    def _constant(self, index: int, bits: int, scale: Scale | None) -> int:
        values = self.editor.values(index)
        grid = INT16 if bits == 16 else INT8
        step, zero = scale or grid.parameters(float(values.min()), float(values.max()))
        steps = np.clip(np.rint(values / np.float32(step)) + zero, grid.lowest, grid.highest)
        made = self.editor.add_constant(f"{self.editor.name(index)}.q", steps.astype(_DTYPES[bits]))
        self.editor.graph.tensors[made].quantization = per_axis.scales(step, zero)
        return made

    def _write(self, operator: Any, form: Form) -> bool:
        bits = self.plan.bits(tflite_file.operation_name(self.editor.graph, operator))
        if bits not in form.bits:
            return False
        floats = [
            (place, index)
            for place, index in enumerate(tflite_file.index_list(operator.inputs))
            if index >= 0 and self.editor.type_name(index) == "FLOAT32"
        ]
        outputs = [
            index
            for index in tflite_file.index_list(operator.outputs)
            if self.editor.type_name(index) == "FLOAT32"
        ]
        constant = {index: self.editor.constant(index) is not None for _, index in floats}
        scale: Scale | None = None
        if form.outputs is Outputs.FIXED:
            scale = None if form.scales is None else form.scales[bits]
            if scale is not None:
                self._warn_if_clipped(operator, scale, bits)
        elif form.outputs is Outputs.OWN and outputs:
            scale = self._range(outputs[0], bits)
            if scale is None:
                return False
        of_output = form.inputs is Inputs.OF_OUTPUT
        inputs = tflite_file.index_list(operator.inputs)
        for place, index in floats:
            shared = scale if of_output else None
            if form.outputs is Outputs.OF_INPUT and place != floats[0][0]:
                shared = scale
            if constant[index]:
                made: int | None = self._constant(index, bits, shared)
            else:
                made = self._integer(index, bits, operator, scale=shared)
            if made is None:
                return False
            inputs[place] = made
            if form.outputs is Outputs.OF_INPUT and place == floats[0][0]:
                scale = tflite_file.quantization(self.editor.graph.tensors[made])
        operator.inputs = np.array(inputs, np.int32)
        self.editor.reindex()
        if scale is not None:  # an operation that gives real values has one
            for index in outputs:
                self._compute(operator, index, scale, bits)
        return True

    def _warn_if_clipped(self, operator: Any, scale: Scale, bits: int) -> None:
        """Warn where a kernel's own scale ends before the values do."""
        index = int(operator.outputs[0])
        given = self.ranges.get(self.editor.name(index))
        grid = INT16 if bits == 16 else INT8
        low, high = ((end - scale[1]) * scale[0] for end in (grid.lowest, grid.highest))
        if given is None or given.low.size != 1:
            return
        least, most = float(given.low.ravel()[0]), float(given.high.ravel()[0])
        if least < low - scale[0] or most > high + scale[0]:
            self.cautions.append(
                f"{self.editor.kind(operator)} {self.editor.name(index)!r} has values from {least:.1f} to"
                f" {most:.1f}; its integer kernel ends at {low:.1f} and {high:.1f}, and clips the others"
            )

    def _compute(self, operator: Any, index: int, scale: Scale, bits: int) -> int:
        """Let an operation compute integers in place of a float tensor; return the integer tensor."""
        name = self.editor.name(index)
        if self.editor.is_output(index):
            made = self.editor.add_tensor(f"{name}_quantized", self.editor.shape(index), _TYPES[bits])
        else:
            self.editor.rename(index, f"{name}_float")
            made = self.editor.add_tensor(name, self.editor.shape(index), _TYPES[bits])
        self.editor.graph.tensors[made].quantization = per_axis.scales(*scale)
        if operator is not None:
            operator.outputs = np.array(
                [made if i == index else i for i in tflite_file.index_list(operator.outputs)], np.int32
            )
            self.editor.reindex()
        self._feed(operator, index, made, scale, bits)
        return made

    def _feed(self, operator: Any, index: int, made: int, scale: Scale, bits: int) -> None:
        """Give the readers of a float tensor the integers in its place."""
        others = False
        for reader in self.editor.readers(index):
            if self.editor.kind(reader) != "QUANTIZE":
                others = True
                continue
            target = int(reader.outputs[0])
            pair = tflite_file.quantization(self.editor.graph.tensors[target])
            same_type = self.editor.type_name(target) == _NAMES[bits]
            if pair is not None and same_type and _equal(pair, scale):
                # To the last bit: a delegate refuses a pooling whose scales differ.
                self.editor.graph.tensors[made].quantization = self.editor.graph.tensors[target].quantization
                self.editor.remove(reader)
                self.editor.redirect(target, made)
            else:
                reader.inputs = np.array([made], np.int32)
                self.editor.reindex()
        self.sources[index] = made
        if others or self.editor.is_output(index):
            place = self.editor.position(operator) + 1
            back = self.editor.operation("DEQUANTIZE", [made], index)
            self.editor.operators.insert(place, back)
            self.editor.reindex()

    def _tabulate(self, operator: Any, region: Region) -> bool:
        bits = self.plan.bits(region.operations[-1])
        names = {tflite_file.tensor_name(t): n for n, t in enumerate(self.editor.graph.tensors)}
        target = int(operator.outputs[0])
        scale = self._range(target, bits) if self.editor.type_name(target) == "FLOAT32" else None
        source = self._region_source(region, names, operator, bits)
        pair = None if source is None else tflite_file.quantization(self.editor.graph.tensors[source])
        if source is None or pair is None or (scale is None and self.editor.type_name(target) == "FLOAT32"):
            return False
        inputs = lookup.inputs_of(self.editor.type_name(source), pair)
        values = lookup.results(self.plan.model, region, inputs)
        made = target
        if scale is not None:
            made = self._compute(operator, target, scale, bits)
        lookup.write(self.editor, operator, source, made, values, scale=scale)
        self.editor.remove(operator)
        self.editor.reindex()
        return True

    def _region_source(
        self, region: Region, names: Mapping[str, int], operator: Any, bits: int
    ) -> int | None:
        index = names.get(region.source)
        if index is None:
            return None
        kind = self.editor.type_name(index)
        if kind in _BITS:
            if _BITS[kind] == bits:
                return index
            back = [each for each in self.editor.readers(index) if self.editor.kind(each) == "DEQUANTIZE"]
            if not back:
                return None
            index = int(back[0].outputs[0])
        return self._integer(index, bits, operator)

    def _cast(self, operator: Any) -> bool:
        """Write CAST of truth values or ids to real values; False where ids may be too large."""
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        kind = self.editor.type_name(source)
        given = self.ranges.get(self.editor.name(target))
        if self.editor.type_name(target) != "FLOAT32" or given is None:
            return False
        if kind == "BOOL":
            bits = self.plan.bits(tflite_file.operation_name(self.editor.graph, operator))
            self._compute(operator, target, (1.0, 0), bits)
            return True
        largest = max(abs(float(given.low.ravel()[0])), abs(float(given.high.ravel()[0])))
        if kind != "INT32" or largest > _MOST_ID:
            return False
        name, inner = self.editor.name(target), source
        for bound, value in (("MINIMUM", _MOST_ID), ("MAXIMUM", -_MOST_ID)):
            limit = self.editor.add_constant(f"{name}.{bound.lower()}", np.array(value, np.int32))
            bounded = self.editor.add_tensor(
                f"{name}.bounded", self.editor.shape(source), schema.TensorType.INT32
            )
            self.editor.insert(operator, bound, [inner, limit], bounded)
            inner = bounded
        operator.inputs = np.array([inner], np.int32)
        operator.builtinOptions = None
        operator.builtinOptionsType = 0
        self.editor.reindex()
        self._compute(operator, target, (1.0, 0), 16)
        return True

    def _lstm(self, operator: Any) -> bool:
        target, bits = int(operator.outputs[0]), lstm.BITS
        scale = self._range(target, bits)
        cell = self.ranges.get(lstm.cell_name(self.editor, operator))
        if scale is None or cell is None or not lstm.is_plain(self.editor, operator):
            return False
        source = self._integer(int(operator.inputs[0]), bits, operator)
        pair = None if source is None else tflite_file.quantization(self.editor.graph.tensors[source])
        if source is None or pair is None:
            return False
        lstm.write(self.editor, operator, source=source, scale=pair[0], output=scale, cell=cell)
        self._compute(operator, target, scale, bits)
        return True

    def _drop_unread(self) -> None:
        """Remove operations that nothing reads any more: conversions and the insides of tables."""
        while True:
            unread = [
                each
                for each in self.editor.operators
                if self._is_spare(each)
                and not any(
                    self.editor.readers(i) or self.editor.is_output(i)
                    for i in tflite_file.index_list(each.outputs)
                )
            ]
            if not unread:
                return
            for each in unread:
                self.editor.remove(each)
            self.editor.reindex()

    def _is_spare(self, operator: Any) -> bool:
        name = tflite_file.operation_name(self.editor.graph, operator)
        inside = any(name in each.operations for each in self.plan.regions)
        return inside or self.editor.kind(operator) in {"DEQUANTIZE", "QUANTIZE"}


_NAMES = {bits: name for name, bits in _BITS.items()}


def _equal(one: Scale, other: Scale) -> bool:
    return bool(np.isclose(one[0], other[0], rtol=1e-6)) and one[1] == other[1]


def notes(completed: Completed) -> tuple[str, ...]:
    """Return the remarks on the operations that this backend wrote."""
    parts = [f"the integer form of {', '.join(sorted(completed.kinds))}"] if completed.kinds else []
    if completed.tables:
        parts.append("a table" if completed.tables == 1 else f"{completed.tables} tables")
    wrote = (f"edgeq wrote {' and '.join(parts)} for what litert-quantizer leaves in float",) if parts else ()
    return (*completed.cautions, *wrote)
