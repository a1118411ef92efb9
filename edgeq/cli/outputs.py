"""Check where a command will write, before the work begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeq.errors import ModelError, UsageError


def check_outputs(outputs: Iterable[tuple[str, Path | None]], *, inputs: Iterable[Path | None] = ()) -> None:
    """Check that every file can be written, that they differ, and that none is an input.

    Args:
        outputs: (option, the file that it names).
        inputs: files that the command reads.

    Raises:
        UsageError: one file has two uses.
        ModelError: EQ311 a file cannot be written.
    """
    from edgeq.files import obstacle

    read = [path for path in inputs if path is not None and path.exists()]
    named: dict[Path, str] = {}
    for option, path in outputs:
        if path is None:
            continue
        if (why := obstacle(path)) is not None:
            hint = f"give another {option}"
            raise ModelError(str(path), f"cannot be written: {why}", hint=hint, code="EQ311")
        for file in read:
            if path.exists() and path.samefile(file):
                text = f"the output would replace the input {file}"
                raise UsageError(str(path), text, hint=f"give another {option}")
        if (other := named.get(path.resolve())) is not None:
            raise UsageError(str(path), f"is both {other} and {option}", hint=f"give another {option}")
        named[path.resolve()] = option
