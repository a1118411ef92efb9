"""The Python modules that can run inference: where each has its Interpreter and its delegate loader.

The names are those of `wire.RUNTIME_MODULES`; a new module is one entry there and one here.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Callable, NamedTuple


class _Entry(NamedTuple):
    """The modules that have `Interpreter` and `load_delegate`."""

    interpreter: str
    delegates: str


_ENTRIES = {
    "ai_edge_litert": _Entry("ai_edge_litert.interpreter", "ai_edge_litert.interpreter"),
    "tflite_runtime": _Entry("tflite_runtime.interpreter", "tflite_runtime.interpreter"),
    "tensorflow": _Entry("tensorflow.lite", "tensorflow.lite.experimental"),
}


def known() -> tuple[str, ...]:
    """Return the names of the modules, the preferred one first."""
    return tuple(_ENTRIES)


def interpreter_class(module: str) -> Any:
    """Import a runtime module and return its Interpreter class."""
    return importlib.import_module(_ENTRIES[module].interpreter).Interpreter


def delegate_loader(module: str) -> Callable[[str], Any]:
    """Import a runtime module and return its `load_delegate`."""
    loader: Callable[[str], Any] = importlib.import_module(_ENTRIES[module].delegates).load_delegate
    return loader


def version_of(module: str) -> str:
    """Return the version of a runtime module, from the module or else from its installed metadata."""
    loaded = importlib.import_module(module)
    stated = getattr(loaded, "__version__", None)
    if isinstance(stated, str):
        return stated
    site = os.path.dirname(os.path.dirname(os.path.abspath(str(loaded.__file__))))
    prefix = module + "-"
    for name in sorted(os.listdir(site)):
        if name.startswith(prefix) and name.endswith(".dist-info"):
            return name[len(prefix) : -len(".dist-info")]
    return "unknown"
