"""edgeq: compress, prove, ship and watch TFLite models on fleets of small devices.

The names below are the public interface; they load on first use, so that `import edgeq` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "EdgeqError": "edgeq.errors",
    "ExitStatus": "edgeq.errors",
    "Device": "edgeq.values",
    "DeviceKind": "edgeq.values",
    "Metrics": "edgeq.values",
    "Variant": "edgeq.values",
}

if TYPE_CHECKING:
    from edgeq.errors import EdgeqError, ExitStatus
    from edgeq.values import Device, DeviceKind, Metrics, Variant

__all__ = [
    "Device",
    "DeviceKind",
    "EdgeqError",
    "ExitStatus",
    "Metrics",
    "Variant",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
