"""Keep Keras from importing scikit-learn, which its wrappers ask for and no job uses.

Where scikit-learn is installed, that is a fifth of the time that an import of TensorFlow and Keras takes.
Code of the user, such as a loss function, imports it as always.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ASKING = "keras.src.wrappers"


class _Finder(MetaPathFinder):
    """Finds nothing; refuses scikit-learn to the wrappers of Keras."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "sklearn" and _importer().startswith(_ASKING):
            raise ModuleNotFoundError("not imported for the wrappers of Keras", name=fullname)
        return None


def _importer() -> str:
    """Return the name of the module that imports something at this moment."""
    frame = inspect.currentframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and not name.startswith("importlib."):
            return name
        frame = frame.f_back
    return ""


def install() -> None:
    """Install the finder for the rest of the process."""
    sys.meta_path.insert(0, _Finder())
