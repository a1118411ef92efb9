"""Versions of the libraries that take part in a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

_USUAL = ("tensorflow", "tf_keras", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def versions_of(more: Sequence[str] = ()) -> dict[str, str]:
    """Return {package: version} of the usual packages and `more`, without those not installed."""
    versions: dict[str, str] = {}
    for name in (*_USUAL, *more):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
