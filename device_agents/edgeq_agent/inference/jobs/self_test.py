"""Job `prove`: which runtime imports here and is right about a tiny model (child process only)."""

from __future__ import annotations

import base64
import sys

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.inference import runtime_modules

# A float model of one ADD, y = x + x for x of shape (1, 4), written field by field with the TFLite schema.
TINY_MODEL = base64.b64decode(
    "CAAAAFRGTDPK////FAAAABwAAAAgAAAABAEAAAMAAAABAAAABAAAAAT///8AAAAAAAAAAAEAAAAUAAAAAAAOABgAFAAQ"
    "AAwACAAEAA4AAAAUAAAAHAAAAFwAAABgAAAAZAAAAAQAAABtYWluAAAAAAEAAAAUAAAAAAAOABQAAAAQAAwACwAEAA4A"
    "AAAQAAAAAAAACwwAAAAQAAAAeP///wEAAAABAAAAAgAAAAAAAAAAAAAAAQAAAAEAAAABAAAAAAAAAAIAAAA0AAAABAAA"
    "AOD///8IAAAADAAAAAEAAAB5AAAAAgAAAAEAAAAEAAAADAAMAAgAAAAAAAQADAAAAAgAAAAMAAAAAQAAAHgAAAACAAAA"
    "AQAAAAQAAAABAAAACAAAAAQABAAEAAAA"
)


def run(job: wire.Json, response: Response) -> wire.Json:
    """Return {module, version, python, numpy, kernels} of the first of `modules` that works.

    Raises:
        AgentError: EQ503, none does; the problem says for each why not.
    """
    failures: list[str] = []
    for module in job["modules"]:
        try:
            return _prove(str(module))
        except Exception as error:  # noqa: BLE001 - whatever a wheel for another processor raises
            failures.append(f"{module}: {why(error)}")
    raise AgentError(
        UNSUPPORTED,
        "runtime",
        "no module imports and infers: " + "; ".join(failures),
        hint="install what is missing on the device; `edgeq doctor DEVICE` says what is there",
    )


def why(error: BaseException) -> str:
    """Return the part of an import's failure that says something.

    numpy wraps a missing library into a page of advice, whose cause stands at its end.
    """
    text = str(error)
    if "Original error was:" in text:
        text = text.partition("Original error was:")[2]
    return " ".join(text.split())[:200] or type(error).__name__


def _prove(module: str) -> wire.Json:
    import numpy as np

    interpreter = runtime_modules.interpreter_class(module)(model_content=TINY_MODEL, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([[1, 2, 3, 4]], np.float32))
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()
    if got != [[2.0, 4.0, 6.0, 8.0]]:
        raise ArithmeticError(f"gives {got} for 1+1, 2+2, 3+3, 4+4")
    return {
        "module": module,
        "version": runtime_modules.version_of(module),
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "numpy": np.__version__,
    }
