"""The state that a TFLite model keeps from one inference to the next: find it in the file, and reset it.

There are two kinds. A variable tensor belongs to an operation (LSTM, RNN, SVDF); the runtime's
`reset_all_variables` sets it to zero. A resource variable is a tf.Variable (VAR_HANDLE, ASSIGN_VARIABLE). The
runtime has no public function that resets it; the graph that CALL_ONCE names gives it its first value.

The file is a FlatBuffer. Only what the question needs is read, with the field numbers of TFLite's schema.fbs.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any, NamedTuple

from edgeq_agent.errors import UNHEALTHY, AgentError

_CALL_ONCE, _ASSIGN_VARIABLE = 129, 144
# Field numbers of the tables Model, OperatorCode, SubGraph, Tensor, Operator and CallOnceOptions.
_OPERATOR_CODES, _SUBGRAPHS = 1, 2
_OLD_CODE, _CODE = 0, 3
_TENSORS, _OPERATORS = 0, 3
_IS_VARIABLE = 5
_OPCODE_INDEX, _OPTIONS = 0, 4
_INIT_SUBGRAPH = 0
_UNREADABLE = (struct.error, ValueError, IndexError)


class State(NamedTuple):
    """What a model keeps between inferences.

    Attributes:
        variables: whether operations of it have variable tensors.
        resources: whether an inference assigns a resource variable.
        initializers: the graphs that give the resource variables their first values.
    """

    variables: bool
    resources: bool
    initializers: tuple[int, ...]

    @property
    def kept(self) -> bool:
        """Whether an inference can depend on earlier ones."""
        return self.variables or self.resources


def read(path: str) -> State:
    """Return the state of the model in a file.

    Raises:
        AgentError: EQ504, the file is not a TFLite model, or damaged.
    """
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(data)
    except _UNREADABLE as error:
        raise AgentError(UNHEALTHY, "model", f"the file is not a complete TFLite model: {error}") from error


def parse(data: Any) -> State:
    """Return the state of the model in bytes.

    Raises:
        ValueError, struct.error: the bytes are not a TFLite model, or damaged.
    """
    model = _Reader(data).root()
    codes = [
        # Files from before schema 3a have the number in the old one-byte field only.
        max(code.number(_CODE, "<i"), code.number(_OLD_CODE, "<b"))
        for code in model.tables(_OPERATOR_CODES)
    ]
    variables = False
    initializers: list[int] = []
    assigning: set[int] = set()
    for number, graph in enumerate(model.tables(_SUBGRAPHS)):
        variables = variables or any(tensor.number(_IS_VARIABLE, "<b") for tensor in graph.tables(_TENSORS))
        for operator in graph.tables(_OPERATORS):
            code = codes[operator.number(_OPCODE_INDEX, "<I")]
            if code == _ASSIGN_VARIABLE:
                assigning.add(number)
            elif code == _CALL_ONCE:
                options = operator.table(_OPTIONS)
                initializers.append(options.number(_INIT_SUBGRAPH, "<i") if options else 0)
    # A variable that only its initializer assigns is a constant.
    resources = bool(assigning - set(initializers))
    return State(variables, resources, tuple(dict.fromkeys(initializers)) if resources else ())


def reset(interpreter: Any, state: State) -> bool:
    """Give all variables of a loaded model their first values.

    Returns:
        False where this runtime cannot: then only loading the model again does.
    """
    if state.resources and not state.initializers:
        return False
    try:
        if state.variables:
            interpreter.reset_all_variables()
        for number in state.initializers:
            inner = interpreter._interpreter  # noqa: SLF001 - no public function runs another graph
            inner.AllocateTensors(number)
            inner.Invoke(number)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    return True


class _Reader:
    """The bytes of a FlatBuffer, with every position checked.

    The number of tables that are read is limited: in a damaged file, many offsets can name the same ones.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._left = len(data)

    def root(self) -> _Table:
        """Return the file's first table."""
        if bytes(self._data[4:8]) != b"TFL3":
            raise ValueError("its identifier `TFL3` is missing")
        return self.table_at(0)

    def unpack(self, form: str, position: int) -> int:
        """Return the number at a position."""
        if position < 0:
            raise ValueError(f"an offset leads to {position}")
        value: int = struct.unpack_from(form, self._data, position)[0]
        return value

    def table_at(self, position: int) -> _Table:
        """Return the table that the offset at a position leads to."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has more tables than bytes")
        return _Table(self, position + self.unpack("<I", position))


class _Table:
    """A table of a FlatBuffer."""

    __slots__ = ("_layout", "_position", "_reader")

    def __init__(self, reader: _Reader, position: int) -> None:
        self._reader = reader
        self._position = position
        self._layout = position - reader.unpack("<i", position)

    def _place(self, field: int) -> int:
        """Return the position of a field; 0 where the table does not have it."""
        entry = 4 + 2 * field
        if entry + 2 > self._reader.unpack("<H", self._layout):
            return 0
        offset = self._reader.unpack("<H", self._layout + entry)
        return self._position + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """Return the number in a field; 0 where the table does not have it."""
        place = self._place(field)
        return self._reader.unpack(form, place) if place else 0

    def table(self, field: int) -> _Table | None:
        """Return the table in a field."""
        place = self._place(field)
        return self._reader.table_at(place) if place else None

    def tables(self, field: int) -> list[_Table]:
        """Return the list of tables in a field."""
        place = self._place(field)
        if not place:
            return []
        start = place + self._reader.unpack("<I", place)
        count = self._reader.unpack("<I", start)
        return [self._reader.table_at(start + 4 + 4 * number) for number in range(count)]
