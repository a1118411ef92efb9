"""The loss of a training, given by name, as a file or module and a function, or as a function itself."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq_converters.training.loss_source import KERAS_LOSSES, LossSource

Loss = str | Callable[[Any, Any], Any]
"""A name, `FILE.py:FUNCTION`, `MODULE:FUNCTION`, or a function of a file (targets, outputs) -> loss."""
_HINT = f"give {', '.join(KERAS_LOSSES)}, FILE.py:FUNCTION or MODULE:FUNCTION"


def loss_source(loss: Loss) -> LossSource:
    """Return where a loss comes from; its file is not run.

    Raises:
        UsageError: an unknown name, a file or module that does not exist, or a function without a file.
    """
    if not isinstance(loss, str):
        return _of_function(loss)
    if loss in KERAS_LOSSES:
        return LossSource(function=loss)
    place, colon, function = loss.rpartition(":")
    if not colon or not place or not all(part.isidentifier() for part in function.split(".")):
        raise UsageError("--loss", expected=_HINT.removeprefix("give "), got=repr(loss), hint="--loss mse")
    if place.endswith(".py") or os.sep in place:
        file = Path(place)
        if not file.is_file():
            raise UsageError("--loss", f"no such file: {place}", hint=_HINT)
        return LossSource(function=function, file=file.resolve())
    return _of_module(place, function)


def source_of(loss: Loss | LossSource | None) -> LossSource | None:
    """Return where a loss comes from; None and the empty text are none.

    Raises:
        UsageError: as `loss_source`.
    """
    if not loss:
        return None
    return loss if isinstance(loss, LossSource) else loss_source(loss)


def _of_module(module: str, function: str) -> LossSource:
    here = os.getcwd()
    sys.path.insert(0, here)  # as Python does for `python -m`
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError("--loss", f"the module {module} cannot be found ({error})", hint=_HINT) from error
    finally:
        sys.path.remove(here)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError("--loss", f"no Python file of the module {module} was found", hint=_HINT)
    return LossSource(
        function=function,
        file=Path(spec.origin).resolve(),
        package=module if "." in module else "",
    )


def _of_function(function: Callable[[Any, Any], Any]) -> LossSource:
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # an instance of a class, or a function that is not written in Python
        file = None
    if file is None or not Path(file).is_file() or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            "loss",
            "the training runs in a process of its own and cannot get this function",
            expected="a function at the top level of a Python file",
            got=name,
            hint="write the function to a file and give loss='FILE.py:FUNCTION'",
        )
    module = function.__module__
    package = module if "." in module and module in sys.modules else ""
    return LossSource(function=name, file=Path(file).resolve(), package=package)
