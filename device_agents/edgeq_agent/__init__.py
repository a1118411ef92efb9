"""What runs on the device: standard library, numpy and a TFLite runtime; Python 3.7 and later.

Applications take `Runtime` from here; it is imported when it is first asked for, so that the agent's verbs,
which do not need it, stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq_agent.sdk.runtime import Runtime as Runtime

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from edgeq_agent.sdk.runtime import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
