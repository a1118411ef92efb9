"""Name what a file of PyTorch holds that is not an exported program, without running its pickle."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path

from edgeq_converters.errors import ConverterError

_EXPORT = "torch.export.save(torch.export.export(model.eval(), (sample,)), 'model.pt2')"
# torch.save before 1.6: a pickle that begins with this number.
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LARGEST_PICKLE = 1 << 24
# What a state_dict is made of; anything else is a class of the model.
_OF_WEIGHTS = ("collections", "torch", "torch._utils", "torch.storage", "_codecs", "numpy")


def require_program(source: Path, names: Collection[str]) -> None:
    """Check that an archive of PyTorch is not one of the kinds without a graph that can be converted.

    Args:
        names: of the archive's members.

    Raises:
        ConverterError: EQ302 a TorchScript file, a state_dict, or a pickled module.
    """
    parts = {name.split("/")[-1] for name in names}
    if "constants.pkl" in parts or any("/code/" in f"/{name}" for name in names):
        raise _other(
            source, "a TorchScript file", "load it with torch.jit.load, and export the Python model: "
        )
    if "data.pkl" in parts:
        whole = _is_whole_module(source, next(name for name in names if name.split("/")[-1] == "data.pkl"))
        raise _saved(source, whole)


def require_not_pickle(source: Path, head: bytes) -> None:
    """Check that a file is not a pickle, as torch.save wrote before PyTorch 1.6.

    Raises:
        ConverterError: EQ302.
    """
    if not (len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5):
        return
    if head[2:].startswith(_LEGACY[: len(head) - 2]):
        raise _other(source, "a pickle that torch.save wrote before PyTorch 1.6", _LOAD)
    raise _other(source, "a Python pickle", _LOAD)


_LOAD = "load the weights into the Python model, and export that: "


def _saved(source: Path, whole: bool) -> ConverterError:
    if whole:
        return _other(source, "a pickled PyTorch module", "load it with torch.load, and export it: ")
    return _other(source, "a PyTorch checkpoint (state_dict), which holds weights and no graph", _LOAD)


def _is_whole_module(source: Path, member: str) -> bool:
    """Return whether a pickle names classes besides those of weights; the pickle is not run."""
    with zipfile.ZipFile(source) as archive:
        if archive.getinfo(member).file_size > _LARGEST_PICKLE:
            return False
        content = archive.read(member)
    texts: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "GLOBAL":
                module = str(argument).split(" ")[0]
            elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
                module = texts[-2]
            else:
                if isinstance(argument, str):
                    texts.append(argument)
                continue
            if not (module in _OF_WEIGHTS or module.startswith("numpy.")):
                return True
    except ValueError:
        return False
    return False


def _other(source: Path, what: str, how: str) -> ConverterError:
    return ConverterError(
        "EQ302", str(source), f"{what} cannot be converted", expected="a .pt2 file", hint=how + _EXPORT
    )
