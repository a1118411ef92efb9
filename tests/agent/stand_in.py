"""A program that speaks as TFLite's benchmark_model does, and runs models for real; the real one is not here.

Its options and lines are those of benchmark_model.cc; `percentiles` are printed by newer versions only.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = """#!{python} -I
import sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter

options = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
print("INFO: STARTING!")
began = time.perf_counter_ns()
try:
    interpreter = Interpreter(model_path=options["graph"], num_threads=int(options["num_threads"]))
    interpreter.allocate_tensors()
except ValueError as error:
    print("ERROR: Failed to load model", options["graph"])
    sys.exit(1)
init = (time.perf_counter_ns() - began) // 1000
print("INFO: Initialized session in %gms." % (init / 1000))
chance = np.random.default_rng(0)

def once():
    for detail in interpreter.get_input_details():
        value = chance.normal(size=detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], value)
    began = time.perf_counter_ns()
    interpreter.invoke()
    return max(1, (time.perf_counter_ns() - began) // 1000)

def measure(least, seconds, longest):
    print("INFO: Running benchmark for at least %d iterations and at least %g seconds but terminate if "
          "exceeding %g seconds." % (least, seconds, longest))
    began, runs = time.monotonic(), []
    while len(runs) < least or time.monotonic() - began < seconds:
        runs.append(once())
        if time.monotonic() - began > longest:
            break
    runs = np.array(runs)
    if len(runs) == 1:
        line = "count=1 curr=%d" % runs[0]
    else:
        line = "count=%d first=%d curr=%d min=%d max=%d avg=%g std=%d" % (
            len(runs), runs[0], runs[-1], runs.min(), runs.max(), runs.mean(), runs.std())
    if {percentiles}:
        line += " p5=%d median=%d p95=%d" % tuple(np.percentile(runs, (5, 50, 95)))
    print("INFO: " + line + "\\n")
    return runs

longest = float(options["max_secs"])
warm = measure(int(options["warmup_runs"]), float(options["warmup_min_secs"]), longest)
runs = measure(int(options["num_runs"]), float(options["min_secs"]), longest)
line = "Init: %d, First inference: %d, Warmup (avg): %g, Inference (avg): %g"
print("INFO: Inference timings in us: " + line % (init, warm[0], warm.mean(), runs.mean()))
print("INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.25")
"""


def benchmark_model(*, percentiles: bool = True) -> bytes:
    """Return the program; it needs the interpreter that runs the tests."""
    text = _SCRIPT.replace("{python}", sys.executable).replace("{percentiles}", str(percentiles))
    return text.encode()


def write(path: Path, data: bytes) -> Path:
    """Write a program."""
    path.write_bytes(data)
    path.chmod(0o755)
    return path
