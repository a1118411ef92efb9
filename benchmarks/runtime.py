"""Cost of `Runtime.infer` over the bare interpreter, and of a hot swap.

`python -m benchmarks.runtime [--json] [--seconds 6]`

The bare interpreter (set_tensor, invoke, get_tensor) and a Runtime with telemetry run each model in one
process, interleaved: once in the model's own types and once with real values, where the bare side quantizes
and dequantizes in numpy, as TFLite's examples do. The overhead is the median difference within a pair. The
ratio is that of the means without the slowest tenth: it includes the time that the recorder's thread takes
from the caller, and excludes other load.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, last_line
from edgeq_agent import Runtime
from edgeq_agent.releases import release_store
from edgeq_agent.storage.home import Home

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 64
# The same kind of layers, more and wider: from far below a millisecond to several.
MODELS = {"kws": (49, 10, 1, 32, 1), "vww": (96, 96, 3, 32, 4), "camera": (224, 224, 3, 24, 6)}

_MAKE = """
import sys
import numpy as np
import tensorflow as tf

name, height, width, channels, filters, blocks, folder = sys.argv[1], *map(int, sys.argv[2:7]), sys.argv[7]
tf.keras.utils.set_random_seed(1)
shape = (height, width, channels)
given = x = tf.keras.Input(shape)
x = tf.keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
for number in range(blocks):
    x = tf.keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = tf.keras.layers.Conv2D(filters * (2 if number % 2 else 1), 1, activation="relu")(x)
x = tf.keras.layers.GlobalAveragePooling2D()(x)
model = tf.keras.Model(given, tf.keras.layers.Dense(12, activation="softmax")(x))
data = np.random.default_rng(1).normal(size=(64, *shape)).astype(np.float32)
np.save(f"{folder}/{name}.npy", data)
converter = tf.lite.TFLiteConverter.from_keras_model(model)
open(f"{folder}/{name}-float32.tflite", "wb").write(converter.convert())
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([row[None]] for row in data[:16])
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(f"{folder}/{name}-int8.tflite", "wb").write(converter.convert())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model with one kind of values, in microseconds."""

    model: str
    values: str
    calls: int
    bare_us: float
    ours_us: float
    overhead_us: float
    ratio: float
    bare_p99_us: float
    ours_p99_us: float


# A device accepts only releases with a higher counter than its last one.
_COUNTERS = itertools.count(1)


class Bare:
    """The bare interpreter."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._given = self._interpreter.get_input_details()[0]
        self._taken = self._interpreter.get_output_details()[0]

    def own(self, sample: Any) -> Any:
        """Run the model in its own types."""
        self._interpreter.set_tensor(self._given["index"], sample)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._taken["index"])

    def real(self, sample: Any) -> Any:
        """Run the model with real values; quantize and dequantize for an integer model."""
        scale, zero = self._given["quantization"]
        if scale:
            sample = np.clip(np.rint(sample / scale) + zero, -128, 127).astype(np.int8)
        answer = self.own(sample)
        scale, zero = self._taken["quantization"]
        return (answer.astype(np.float32) - zero) * scale if scale else answer

    def integers(self, samples: Any) -> Any:
        """Return samples in the model's own type."""
        scale, zero = self._given["quantization"]
        return np.clip(np.rint(samples / scale) + zero, -128, 127).astype(np.int8) if scale else samples


def _agent(home: Path, verb: str, payload: bytes = b"", **request: Any) -> dict[str, Any]:
    if payload:
        request["payload_bytes"] = len(payload)
    done = subprocess.run(
        [sys.executable, "-m", "edgeq_agent", verb, "--home", str(home)],
        input=json.dumps(request).encode() + b"\n" + payload, capture_output=True, check=False,
    )  # fmt: skip
    last = json.loads(done.stdout.splitlines()[-1])
    if last["event"] != "result":
        raise SystemExit(f"{verb}: {last}\n{done.stderr.decode()}")
    result: dict[str, Any] = last["result"]
    return result


def _deploy(home: Path, name: str, path: Path, samples: npt.NDArray[Any], variant: str) -> str:
    """Make a bundle of a model, activate it with the agent's own verbs, and return the release."""
    import hashlib
    import io

    from edgeq.bundle.keys import workspace_key
    from edgeq.bundle.signatures import sign
    from edgeq_agent import wire

    bare = Bare(path)
    inputs = bare.integers(samples[:4])
    golden = io.BytesIO()
    np.savez(golden, input_0=inputs, output_0=np.concatenate([bare.own(row[None]) for row in inputs]))
    means = samples.reshape(len(samples), -1, samples.shape[-1]).mean(axis=1)
    channels = [{"edges": np.histogram_bin_edges(column, 10).tolist()} for column in means.T]
    reference = {
        "schema": wire.REFERENCE_SCHEMA,
        "inputs": [{"name": "x", "channels": channels}],
        "output": {"classes": 12},
    }
    files = {
        "model.tflite": path.read_bytes(),
        "golden.npz": golden.getvalue(),
        "reference.json": json.dumps(reference).encode(),
    }
    manifest = {
        "schema": wire.MANIFEST_SCHEMA, "model": name, "variant": variant, "counter": next(_COUNTERS),
        "files": {
            file: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for file, data in files.items()
        },
        "golden": {"file": "golden.npz", "max_steps": 1, "atol": 1e-3, "rtol": 1e-2},
        "reference": {"file": "reference.json"},
    }  # fmt: skip
    for data in files.values():
        _agent(home, "put", data, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    digest = hashlib.sha256(b"benchmark").hexdigest()
    _agent(home, "runtime", digest=digest, wheels=[], modules=["ai_edge_litert"])
    release = wire.digest(manifest)
    key = workspace_key(home.parent)
    entry = {"public": key.public.base64, "role": "publish", "name": key.public.name}
    _agent(home, "trust", change={"schema": wire.TRUST_CHANGE_SCHEMA, "add": [entry]})
    signatures = [one.to_request() for one in sign(manifest, [key])]
    _agent(
        home, "activate",
        model=name, release=release, runtime=digest, manifest=manifest, signatures=signatures,
    )  # fmt: skip
    return release


def _measure(
    name: str,
    values: str,
    bare: Callable[[Any], Any],
    ours: Callable[[Any], Any],
    samples: Any,
    seconds: float,
) -> Row:
    times: tuple[list[int], list[int]] = ([], [])
    clock = time.perf_counter_ns
    for sample in samples:  # warm both
        bare(sample[None])
        ours(sample[None])
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for number, sample in enumerate(samples):
            # The order alternates, because the second one finds the sample in the cache.
            for which in (0, 1) if number % 2 else (1, 0):
                began = clock()
                (ours if which else bare)(sample[None])
                times[which].append(clock() - began)
    times_us = [np.array(each) / 1e3 for each in times]
    return Row(
        model=name, values=values, calls=len(times[0]),
        bare_us=float(np.median(times_us[0])), ours_us=float(np.median(times_us[1])),
        overhead_us=float(np.median(times_us[1] - times_us[0])),
        ratio=_trimmed(times_us[1]) / _trimmed(times_us[0]),
        bare_p99_us=float(np.percentile(times_us[0], 99)), ours_p99_us=float(np.percentile(times_us[1], 99)),
    )  # fmt: skip


def _trimmed(values: npt.NDArray[np.float64]) -> float:
    """Return the mean without the slowest tenth."""
    return float(np.sort(values)[: max(1, len(values) * 9 // 10)].mean())


def _swaps(home: Path, name: str, two: list[str], sample: Any, seconds: float) -> tuple[int, int, float]:
    """Return (swaps, calls, the longest call in us) of four threads that call while releases change."""
    ended = threading.Event()
    longest = [0] * 4
    calls = [0] * 4

    def call(number: int, rt: Runtime) -> None:
        while not ended.is_set():
            began = time.perf_counter_ns()
            rt.infer(sample)
            longest[number] = max(longest[number], time.perf_counter_ns() - began)
            calls[number] += 1

    swaps = 0
    with Runtime(name, str(home), poll_s=0.02) as rt:
        threads = [threading.Thread(target=call, args=(number, rt)) for number in range(4)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            target = two[swaps % 2]
            release_store.point(Home(str(home)), name, target)
            while rt.release != target:
                time.sleep(0.005)
            swaps += 1
        ended.set()
        for thread in threads:
            thread.join()
    return swaps, sum(calls), max(longest) / 1e3


def main() -> None:
    """Measure, print the table, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds for each row")
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, home = Path(temporary), Path(temporary) / "home"
        for name, shape in MODELS.items():
            made = subprocess.run(
                [sys.executable, "-c", _MAKE, name, *map(str, shape), str(folder)],
                capture_output=True, text=True, check=False, cwd=ROOT,
            )  # fmt: skip
            if made.returncode:
                raise SystemExit(made.stderr[-2000:])
            samples = np.load(folder / f"{name}.npy")[:SAMPLES]
            two = []
            for variant in ("float32", "int8"):
                path = folder / f"{name}-{variant}.tflite"
                two.append(_deploy(home, name, path, samples, variant))
                bare = Bare(path)
                with Runtime(name, str(home)) as rt:
                    label = f"{name} {variant}"
                    rows.append(_measure(label, "real", bare.real, rt.infer, samples, asked.seconds))
                    if variant == "int8":
                        own = bare.integers(samples)

                        def raw(sample: Any, rt: Runtime = rt) -> Any:
                            return rt.infer(sample, raw=True)

                        rows.append(_measure(label, "own", bare.own, raw, own, asked.seconds))
            if name == "kws":
                swaps, calls, longest_us = _swaps(home, name, two, samples[0], asked.seconds)
    figures: list[Figure] = []
    for row in rows:
        what = f"{row.model} {row.values} values"
        if not asked.json:
            print(
                f"{what:28} {row.calls:7} calls  bare {row.bare_us:8.1f} us  Runtime {row.ours_us:8.1f} us"
                f"  {row.overhead_us:+7.2f} us  x{row.ratio:.3f}"
                f"  p99 {row.bare_p99_us:8.1f} / {row.ours_p99_us:8.1f} us",
                flush=True,
            )
        if row.bare_us >= 1000:
            ratio = Figure(name=f"{what} time", value=row.ratio, unit="ratio", peer=1.0, reach="<=1.05")
            figures.append(ratio)
        else:
            figures.append(
                Figure(name=f"{what} overhead", value=row.overhead_us, unit="us", peer=0.0, reach="<=15")
            )
    if not asked.json:
        print(f"{swaps} swaps under {calls} calls of 4 threads: the longest call took {longest_us:.0f} us")
    print(last_line(figures))


if __name__ == "__main__":
    main()
