"""Job `prove`: the self-test of runtime modules, computing a tiny model (child process only)."""

from __future__ import annotations

import sys

from edgeq_agent.errors import UNSUPPORTED, AgentError
from edgeq_agent.inference import runtime_modules
from edgeq_agent.inference.job import JobContext, SelfTest, SelfTestJob
from edgeq_agent.inference.tiny_model import TINY_MODEL
from edgeq_agent.wire import Json


def run(job: SelfTestJob, context: JobContext) -> Json:
    """Return the `SelfTest` of the first module that works.

    Raises:
        AgentError: EQ503, none does; the problem names the reason for each.
    """
    failures: list[str] = []
    for module in job.modules:
        try:
            return _test(module).to_json()
        except Exception as error:  # noqa: BLE001 - a wheel for another processor may raise anything
            failures.append(f"{module}: {reason_of(error)}")
    raise AgentError(
        UNSUPPORTED,
        "runtime",
        "no module imports and infers: " + "; ".join(failures),
        hint="install what is missing on the device; `edgeq doctor DEVICE` lists what is there",
    )


def reason_of(error: BaseException) -> str:
    """Return the cause from the message of a failed import.

    numpy wraps a missing library into a page of advice and puts the cause at the end.
    """
    text = str(error)
    if "Original error was:" in text:
        text = text.partition("Original error was:")[2]
    return " ".join(text.split())[:200] or type(error).__name__


def _test(module: str) -> SelfTest:
    import numpy as np

    interpreter = runtime_modules.interpreter_class(module)(model_content=TINY_MODEL, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([[1, 2, 3, 4]], np.float32))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()
    if output != [[2.0, 4.0, 6.0, 8.0]]:
        raise ArithmeticError(f"gives {output} for 1+1, 2+2, 3+3, 4+4")
    return SelfTest(
        module=module,
        version=runtime_modules.version_of(module),
        python="{}.{}.{}".format(*sys.version_info[:3]),
        numpy=np.__version__,
    )
