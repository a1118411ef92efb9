"""A drafted blueprint: its text, what it is based on, and the files that writing it adds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Scheme, Task, parse_blueprint
from edgeq.blueprint.schema import shipped
from edgeq.drafting.interface import SourceInterface
from edgeq.drafting.limits import Limit
from edgeq.drafting.prepare import DataPart
from edgeq.drafting.split import NewFile
from edgeq.errors import DiskRefused, UsageError
from edgeq.evaluation import TensorInfo
from edgeq.files import obstacle, write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A blueprint that is not written yet, and what it is based on.

    Attributes:
        path: where `write` puts the text.
        schema: where `write` puts the JSON Schema that the text names.
        task: None where several are possible; `reason` says why.
        labels: class names; empty without names.
        limit: of accuracy, or of the distance from the float model.
        shared: samples of the evaluation data that calibration or training data have, too.
        new_files: data that `write` adds.
        notes: what was done or chosen.
        warnings: what may be wrong.
    """

    path: Path
    schema: Path
    text: str
    interface: SourceInterface
    task: Task | None
    reason: str
    labels: tuple[str, ...]
    schemes: tuple[Scheme, ...]
    data: tuple[DataPart, ...]
    limit: Limit
    shared: int
    new_files: tuple[NewFile, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def write(self, *, force: bool = False) -> Blueprint:
        """Write the blueprint, its schema and its new data files, and return the blueprint.

        A failure leaves no new file. A data file is never replaced.

        Args:
            force: replace a blueprint that exists.

        Raises:
            UsageError: a file exists, or the blueprint would replace the model or its data.
            DiskRefused: EQ620 the blueprint cannot be written.
            OSError: another file cannot be written; it is named.
        """
        require_free(self.path, force=force)
        for read in (self.interface.source, *(part.path for part in self.data)):
            if self.path.exists() and read.exists() and self.path.samefile(read):
                raise UsageError(
                    str(self.path), f"the blueprint would replace {read}", hint="give another -o"
                )
        if (why := obstacle(self.path)) is not None:
            raise DiskRefused(str(self.path), f"cannot be written: {why}")
        for new in self.new_files:
            _require_no_data(new.path)
        # The names in the blueprint go through its folder: ../model.keras.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        added: list[Path] = []
        try:
            for new in self.new_files:
                added.append(new.path)
                write_atomic(new.path, new.content)
            blueprint = parse_blueprint(self.text, self.path)
            write_atomic(self.schema, shipped().encode())
            write_atomic(self.path, self.text.encode())
        except BaseException:
            for path in added:
                path.unlink(missing_ok=True)
            raise
        return blueprint

    def to_json(self) -> dict[str, Any]:
        """Return the draft as `edgeq.init/1`."""
        return {
            "path": str(self.path),
            "schema_path": str(self.schema),
            "source": str(self.interface.source),
            "source_kind": self.interface.kind.value,
            "inputs": [_tensor(tensor) for tensor in self.interface.inputs],
            "outputs": [_tensor(tensor) for tensor in self.interface.outputs],
            "task": None if self.task is None else self.task.value,
            "reason": self.reason,
            "labels": list(self.labels),
            "data": [
                {
                    "role": part.role,
                    "path": str(part.path),
                    "samples": part.samples,
                    "labelled": part.labelled,
                    "created": part.created,
                }
                for part in self.data
            ],
            "shared_samples": self.shared,
            "schemes": [scheme.value for scheme in self.schemes],
            "limits": {self.limit.key: self.limit.value},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def require_free(path: Path, *, force: bool) -> None:
    """Check that no blueprint would be replaced against the user's will.

    Raises:
        UsageError: the file exists.
    """
    if path.exists() and not force:
        raise UsageError(
            str(path), "exists already", hint="give another -o, or --force to replace the blueprint"
        )


def _require_no_data(path: Path) -> None:
    """Check that no data file would be replaced, which even --force does not.

    Raises:
        UsageError: the file exists.
    """
    if path.exists():
        raise UsageError(
            str(path),
            "exists already, and data is never replaced",
            hint=f"use it: --{path.stem} {path}; or move it away, or give -o in another folder",
        )


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
