"""Homes of devices for the tests of the agent: empty, prepared, and with releases that serve."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.agent.bundles import (
    RUNTIME,
    Bundle,
    bundle_from,
    bundle_of,
    npz,
    reference_of,
    run_here,
    total_bundle,
)
from tests.agent.device import CODE, Device
from tests.agent.publisher import PUBLISHER, change_of, id_of, signature_of
from tests.agent.served import Served, running
from tests.once import Once

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Return how tests make a device, bundles and signatures."""
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


@pytest.fixture(scope="session")
def tiny_data(tiny_models: Path) -> Any:
    """Return 200 samples of shape (6, 6, 2), float32."""
    import numpy as np

    return np.load(tiny_models / "data.npy")


def _tiny_bundle(model: Path, data: Any, *, counter: int) -> Bundle:
    reference = reference_of(data, classes=3, channels=2)
    return bundle_of(
        model, data[:20], reference, name="tiny", change=lambda body: body.update(counter=counter)
    )


@pytest.fixture(scope="session")
def int8_bundle(tiny_models: Path, tiny_data: Any) -> Bundle:
    """Return the int8 model's bundle, named `tiny`."""
    return _tiny_bundle(tiny_models / "int8.tflite", tiny_data, counter=1)


@pytest.fixture(scope="session")
def float_bundle(tiny_models: Path, tiny_data: Any) -> Bundle:
    """Return the float model's bundle, also named `tiny`: another release of the same model."""
    return _tiny_bundle(tiny_models / "float.tflite", tiny_data, counter=3)


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
