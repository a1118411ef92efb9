"""A .tflite model as a value: its bytes, its parsed graph, and the subject that errors name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from edgeq_converters.graph import tflite_file
from edgeq_converters.values import TensorInfo


class HasGraph(Protocol):
    """A parsed graph and the subject of errors about it: a `Model`, or an `Editor` that changes one."""

    @property
    def parsed(self) -> Any:
        """The schema's ModelT."""

    @property
    def subject(self) -> str:
        """The file or source that errors name."""


# No slots: the parsed graph is cached in the instance's dictionary.
@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An immutable .tflite model, which is parsed once, when its graph is first read.

    The parsed constants are views of `data`, so that keeping the graph costs little memory.

    Attributes:
        data: the content of the .tflite file.
        subject: the file or source that errors name.
    """

    data: bytes = field(repr=False)
    subject: str

    @classmethod
    def read(cls, path: Path) -> Model:
        """Return the model of a file, which becomes the subject."""
        return cls(data=path.read_bytes(), subject=str(path))

    @cached_property
    def parsed(self) -> Any:
        """The schema's ModelT, read only: `edit.Editor` has one that may be changed.

        Raises:
            ConverterError: EQ302 not a .tflite, EQ303 its content does not hold together.
        """
        return tflite_file.parse(self.data, subject=self.subject)

    @property
    def graph(self) -> Any:
        """The main subgraph."""
        return self.parsed.subgraphs[0]

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The main graph's inputs in the interpreter's order."""
        return tflite_file.inputs_and_outputs(self.parsed)[0]

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The main graph's outputs in the interpreter's order."""
        return tflite_file.inputs_and_outputs(self.parsed)[1]

    @property
    def sha256(self) -> str:
        """The digest of the file's content, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def with_data(self, data: bytes) -> Model:
        """Return another model with the same subject."""
        return Model(data=data, subject=self.subject)
