"""Models compiled for the Edge TPU: recognise the file, load libedgetpu as a delegate of the runtime.

Follows coral.ai's "Run inference on the Edge TPU with Python": the runtime's
`load_delegate("libedgetpu.so.1")`.
"""

from __future__ import annotations

from typing import Any

from edgeq_agent.errors import EDGETPU_MISSING, AgentError
from edgeq_agent.inference import runtime_modules
from edgeq_agent.platforms.edgetpu import LIBRARY

KERNELS = "edgetpu"
# edgetpu_compiler replaces all operations that it compiles with this custom operation.
_OPERATION = b"edgetpu-custom-op"
_CHUNK_BYTES = 1024 * 1024


def is_compiled(path: str) -> bool:
    """Return whether a model file was compiled for the Edge TPU."""
    tail = b""
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            if _OPERATION in tail + chunk:
                return True
            if not chunk:
                return False
            tail = chunk[-len(_OPERATION) :]


def load_delegate(module: str) -> Any:
    """Load libedgetpu as a delegate of a runtime module.

    Raises:
        AgentError: EQ560, the library does not load or finds no accelerator.
    """
    try:
        import ctypes

        # The runtime's own object for a library that does not load writes a traceback when it is freed.
        ctypes.CDLL(LIBRARY)
        return runtime_modules.delegate_loader(module)(LIBRARY)
    except (ImportError, ValueError, OSError, RuntimeError, AttributeError) as error:
        # The runtime's own message is empty when the library finds no accelerator.
        reason = " ".join(str(error).split())[:200] or "it finds no accelerator"
        raise AgentError(
            EDGETPU_MISSING,
            "model",
            f"it was compiled for the Edge TPU, but {LIBRARY} does not load as a delegate: {reason}",
            hint="install libedgetpu on the device and connect the accelerator, "
            "or deploy the model that was not compiled for it",
        ) from error
