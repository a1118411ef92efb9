"""The device side of edgeq: standard library, numpy and a TFLite runtime; Python 3.7 and later.

Applications import `Runtime` from here. It is imported on first use, so that the agent's verbs, which do not
need it, start quickly.
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
