"""Versions of the libraries that take part in a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

_USUAL = ("tensorflow", "tf_keras", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def versions_of(more: Sequence[str] = ()) -> dict[str, str]:
    """Return {package: version} of the usual packages and `more`, without those not installed.

    Args:
        more: names, or `name==version` of a package in another environment.
    """
    versions: dict[str, str] = {}
    for given in (*_USUAL, *more):
        name, elsewhere, known = given.partition("==")
        if elsewhere:
            versions[name] = known
            continue
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
