"""A device of its own for each test: a home folder, and the agent as the process that SSH would start."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire
from tests.agent.served import Served, running
from tests.once import Once

CODE = Path(__file__).resolve().parents[2] / "device_agents"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# The key that every prepared home trusts.
PUBLISHER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the tests' publisher").digest())
RUNTIME = hashlib.sha256(b"the test's own interpreter").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one call of the agent wrote."""

    status: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def result(self) -> dict[str, Any]:
        assert self.last["event"] == "result", (self.last, self.stderr)
        assert self.status == 0
        result: dict[str, Any] = self.last["result"]
        return result

    @property
    def error(self) -> dict[str, Any]:
        assert self.last["event"] == "error", self.last
        assert self.status == 1
        error: dict[str, Any] = self.last["error"]
        return error

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.events if message["event"] == event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A home folder and the command that runs the agent there."""

    home: Path
    command: tuple[str, ...] = (sys.executable, "-m", "edgeq_agent")
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "PYTHONPATH": str(CODE)})

    def start(self, verb: str, **extra: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.command, verb, "--home", str(self.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            **extra,
        )

    def raw(self, verb: str, data: bytes, *, timeout_s: float = 120, **extra: Any) -> Answered:
        with self.start(verb, **extra) as process:
            out, err = process.communicate(data, timeout=timeout_s)
        events = [wire.parse(line) for line in out.splitlines()]
        assert events, err.decode()
        wire.check_hello(events[0])
        return Answered(status=process.returncode, events=events, stderr=err.decode())

    def call(self, verb: str, payload: bytes | None = None, **request: Any) -> Answered:
        if payload is not None:
            request["payload_bytes"] = len(payload)
        return self.raw(verb, json.dumps(request).encode() + b"\n" + (payload or b""))

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.call("put", data, sha256=sha, size_bytes=len(data)).result  # noqa: B018 - asserts success
        return sha

    def enrol(self) -> None:
        """Let the device trust the tests' publisher, as its enrolment would."""
        assert self.call("trust", change=change_of(PUBLISHER)).result["changed"]

    def current(self, model: str) -> str | None:
        link = self.home / "models" / model / "current"
        return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A manifest and the bytes of its files."""

    manifest: dict[str, Any]
    files: dict[str, bytes]

    @property
    def release(self) -> str:
        return wire.digest(self.manifest)

    def send(self, device: Device) -> None:
        for data in self.files.values():
            device.put(data)

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the request of `activate`, signed by the tests' publisher."""
        body = {"model": self.manifest["model"], "release": self.release, "manifest": self.manifest}
        return {**body, "runtime": RUNTIME, "signatures": [signature_of(self.manifest)], **changes}


def signature_of(
    document: dict[str, Any], key: Ed25519PrivateKey = PUBLISHER, payload_type: str = wire.RELEASE_TYPE
) -> dict[str, str]:
    """Return an entry of `signatures`."""
    signature = key.sign(wire.signed_bytes(payload_type, document))
    return {"key": id_of(key), "sig": base64.b64encode(signature).decode()}


def id_of(key: Ed25519PrivateKey) -> str:
    """Return the id under which devices know a key."""
    return wire.key_id(key.public_key().public_bytes_raw())


def change_of(*add: Ed25519PrivateKey, **more: Any) -> dict[str, Any]:
    """Return a change of trust that adds keys."""
    entries = [
        {
            "public": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            "role": "publish",
            "name": "tests",
        }
        for key in add
    ]
    return {"schema": wire.TRUST_CHANGE_SCHEMA, "add": entries, **more}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Return what tests need from this file: in the import mode `importlib` nothing imports it."""
    return SimpleNamespace(
        CODE=CODE,
        SHARED=SHARED,
        RUNTIME=RUNTIME,
        Device=Device,
        Bundle=Bundle,
        npz=npz,
        run_here=run_here,
        reference_of=reference_of,
        bundle_of=bundle_of,
        bundle_from=bundle_from,
        PUBLISHER=PUBLISHER,
        signature_of=signature_of,
        id_of=id_of,
        change_of=change_of,
        total_bundle=total_bundle,
    )


def _injection(name: str) -> ModuleType:
    path = Path(__file__).parent / "injection" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"agent_injection_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def injection() -> SimpleNamespace:
    """Return the modules that inject faults, and the tally of those tried."""
    names = ("page_cache", "machine", "scenarios", "experiments", "lab")
    return SimpleNamespace(**{name: _injection(name) for name in names}, tally=FAULTS)


FAULTS: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many faults were tried, so that it can be quoted."""
    if FAULTS:
        parts = ", ".join(f"{count} {name}" for name, count in sorted(FAULTS.items()))
        terminalreporter.write_line(f"faults tried on the agent: {sum(FAULTS.values())} ({parts})")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return a device without anything on it."""
    return Device(home=tmp_path / "home")


@pytest.fixture(scope="session")
def prepared(once: Once) -> Path:
    """Return a home whose runtime is the test's own interpreter; copied, not changed."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)

    def prepare(folder: Path) -> None:
        device = Device(home=folder / "home")  # the agent makes it, with its own permissions
        made = device.call("runtime", digest=RUNTIME, wheels=[], modules=["ai_edge_litert"]).result
        assert made["interpreter"] == sys.executable
        device.enrol()

    return once.folder("agent-prepared", prepare) / "home"


@pytest.fixture(scope="session")
def prepared_serving(prepared: Path, int8_bundle: Bundle, once: Once) -> Path:
    """Return a home where the int8 bundle serves; copied, not changed."""
    folder = once.folder("agent-serving", lambda empty: _activate(int8_bundle, prepared, empty / "home"))
    return folder / "home"


def _activate(bundle: Bundle, before: Path, home: Path) -> None:
    shutil.copytree(before, home, symlinks=True)
    device = Device(home=home)
    bundle.send(device)
    assert device.call("activate", **bundle.request()).result["changed"]


@pytest.fixture
def ready(device: Device, prepared: Path) -> Device:
    """Return a device whose runtime is the test's own interpreter."""
    shutil.copytree(prepared, device.home, symlinks=True)
    return device


def npz(**arrays: Any) -> bytes:
    """Return arrays as the bytes of an .npz file."""
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


_TRAIN = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
tf.keras.utils.set_random_seed(7)
rng = np.random.default_rng(7)
data = rng.normal(size=(200, 6, 6, 2)).astype(np.float32)
model = tf.keras.Sequential([
    tf.keras.Input((6, 6, 2)),
    tf.keras.layers.Conv2D(4, 3, activation="relu"),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(3, activation="softmax"),
])
converter = tf.lite.TFLiteConverter.from_keras_model(model)
open(folder + "/float.tflite", "wb").write(converter.convert())
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([row[None]] for row in data)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(folder + "/int8.tflite", "wb").write(converter.convert())
np.save(folder + "/data.npy", data)
adder = tf.keras.Sequential([
    tf.keras.Input((6, 6, 2)),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(3, use_bias=False, kernel_initializer="ones"),
])
open(folder + "/sum.tflite", "wb").write(tf.lite.TFLiteConverter.from_keras_model(adder).convert())
"""


@pytest.fixture(scope="session")
def tiny_models(once: Once) -> Path:
    """Return a folder with float.tflite, int8.tflite (inputs (6, 6, 2), 3 classes) and data.npy."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)
    return once.folder("agent-tiny-models", _train)


def _train(folder: Path) -> None:
    argv = [sys.executable, "-c", _TRAIN, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_here(model: Path, samples: Any) -> tuple[Any, Any]:
    """Return (inputs, outputs) of a model in its own dtypes, run on this machine."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if entry["dtype"] == np.int8:
        scale, zero = entry["quantization"]
        samples = np.clip(np.rint(samples / scale) + zero, -128, 127).astype(np.int8)
    outputs = []
    for row in range(len(samples)):
        interpreter.set_tensor(entry["index"], samples[row : row + 1])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(exit_["index"])[0])
    return samples, np.stack(outputs)


def reference_of(samples: Any, *, classes: int, channels: int) -> dict[str, Any]:
    """Return a reference of 4 bins a channel and 5 bins of confidence."""
    import numpy as np

    means = samples.reshape(len(samples), -1, channels).mean(axis=1)
    histograms = []
    for channel in range(channels):
        counts, edges = np.histogram(means[:, channel], bins=4)
        histograms.append({"edges": edges.tolist(), "counts": counts.tolist()})
    return {
        "schema": wire.REFERENCE_SCHEMA,
        "statistic": "per-sample per-channel mean",
        "inputs": [{"name": "x", "channels": histograms}],
        "output": {
            "classes": classes,
            "predicted": [0] * classes,
            "confidence": {"edges": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "counts": [0] * 5},
            "confidence_from": "probabilities",
        },
    }


def bundle_of(
    model: Path,
    samples: Any,
    reference: dict[str, Any],
    *,
    name: str,
    change: Callable[[dict[str, Any]], object] = dict,
) -> Bundle:
    """Return a bundle whose golden outputs were made on this machine; `change` edits the manifest."""
    inputs, outputs = run_here(model, samples)
    files = {
        "model.tflite": model.read_bytes(),
        "golden.npz": npz(input_0=inputs, output_0=outputs),
        "reference.json": wire.canonical(reference),
    }
    return bundle_from(files, samples=len(inputs), name=name, change=change)


def bundle_from(
    files: dict[str, bytes], *, samples: int, name: str, change: Callable[[dict[str, Any]], object] = dict
) -> Bundle:
    """Return a bundle of these files."""
    manifest: dict[str, Any] = {
        "schema": wire.MANIFEST_SCHEMA,
        "model": name,
        "variant": "int8",
        "created_by": "tests",
        "counter": 2,
        "files": {
            file: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for file, data in files.items()
        },
        "golden": {
            "file": "golden.npz",
            "samples": samples,
            "max_steps": 1,
            "atol": 1e-4,
            "rtol": 1e-3,
            "runtime": {"module": "ai_edge_litert", "version": "0", "machine": "other"},
        },
        "reference": {"file": "reference.json"},
        "requires": {"kinds": [], "free_bytes": 0},
        "limits": {"latency_p95_ns": None, "memory_peak_bytes": None},
        "labels": ["a", "b", "c"],
        "lineage": {},
    }
    change(manifest)
    return Bundle(manifest=manifest, files=files)


@pytest.fixture(scope="session")
def tiny_data(tiny_models: Path) -> Any:
    """Return 200 samples of shape (6, 6, 2), float32."""
    import numpy as np

    return np.load(tiny_models / "data.npy")


@pytest.fixture(scope="session")
def int8_bundle(tiny_models: Path, tiny_data: Any) -> Bundle:
    """Return the int8 model's bundle, named `tiny`."""
    reference = reference_of(tiny_data, classes=3, channels=2)
    return bundle_of(
        tiny_models / "int8.tflite",
        tiny_data[:20],
        reference,
        name="tiny",
        change=lambda body: body.update(counter=1),
    )


@pytest.fixture(scope="session")
def float_bundle(tiny_models: Path, tiny_data: Any) -> Bundle:
    """Return the float model's bundle, also named `tiny`: another release of the same model."""
    reference = reference_of(tiny_data, classes=3, channels=2)
    return bundle_of(
        tiny_models / "float.tflite",
        tiny_data[:20],
        reference,
        name="tiny",
        change=lambda body: body.update(counter=3),
    )


@pytest.fixture
def serving(device: Device, prepared_serving: Path) -> Device:
    """Return a device on which the int8 bundle serves."""
    shutil.copytree(prepared_serving, device.home, symlinks=True)
    return device


@pytest.fixture
def still_serves(serving: Any, int8_bundle: Any, tiny_data: Any, kit: Any) -> Callable[[], None]:
    """Return a check that the int8 release serves as before, answers, and nothing half-made is left."""
    state = serving.home / "models" / "tiny" / "state.json"
    before = state.read_bytes()

    def check() -> None:
        assert serving.current("tiny") == int8_bundle.release
        assert state.read_bytes() == before, "an attack must not even reach the state machine"
        assert serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").result["samples"] == 2
        assert list((serving.home / "tmp").iterdir()) == []
        assert not list(serving.home.rglob("PWNED"))

    return check


@pytest.fixture(scope="session")
def prepared_both(prepared_serving: Path, float_bundle: Bundle, once: Once) -> Path:
    """Return a home where the float bundle serves, and the int8 bundle did before; copied, not changed."""
    folder = once.folder(
        "agent-both", lambda empty: _activate(float_bundle, prepared_serving, empty / "home")
    )
    return folder / "home"


def total_bundle(model: bytes, outputs: Any, *, counter: int) -> Bundle:
    """Return a bundle named `total` of a model of `tests.stateful`.

    Args:
        outputs: of the model for each of `stateful.samples()` alone.
    """
    from tests import stateful

    classes = outputs.shape[1]
    reference = {"schema": wire.REFERENCE_SCHEMA, "inputs": [], "output": {"classes": classes}}
    files = {
        "model.tflite": model,
        "golden.npz": npz(input_0=stateful.samples(), output_0=outputs),
        "reference.json": wire.canonical(reference),
    }
    changes = {"labels": [str(number) for number in range(classes)], "counter": counter}
    return bundle_from(files, samples=len(outputs), name="total", change=lambda body: body.update(changes))


@pytest.fixture(scope="session")
def prepared_total(prepared: Path, once: Once) -> Path:
    """Return a home where an accumulator serves, and one of gain 10 did before; copied, not changed."""
    from tests import stateful

    def build(folder: Path) -> None:
        before = prepared
        for gain in (10.0, 1.0):
            outputs = stateful.START + gain * stateful.samples()
            bundle = total_bundle(stateful.accumulator(gain), outputs, counter=int(21 - gain))
            _activate(bundle, before, folder / f"gain-{gain:g}")
            before = folder / f"gain-{gain:g}"

    return once.folder("agent-total", build) / "gain-1"


@pytest.fixture
def total(device: Device, prepared_total: Path) -> Device:
    """Return a device on which an accumulator serves, and one of gain 10 did before."""
    shutil.copytree(prepared_total, device.home, symlinks=True)
    return device


@pytest.fixture
def both(device: Device, prepared_both: Path) -> Device:
    """Return a device that has two releases of `tiny`: the float one serves, the int8 one did before."""
    shutil.copytree(prepared_both, device.home, symlinks=True)
    return device


@pytest.fixture(scope="module")
def server(prepared_both: Path, tmp_path_factory: pytest.TempPathFactory, kit: Any) -> Iterator[Served]:
    """Return a server of the float release on a port, for tests that change nothing."""
    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(prepared_both, home, symlinks=True)
    with running(kit.Device(home=home), "--port", "0", "--max-body", "100000") as running_server:
        yield running_server


@pytest.fixture(scope="module")
def name(server: Served) -> str:
    """Return the name of the model's input."""
    return str(json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"])
