"""edgeq: compress, verify, deploy and monitor TFLite models on fleets of small devices.

The names in `__all__` are the public interface. Each loads on first use, so `import edgeq` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeq.version import VERSION as __version__

_WHERE = {
    "Blueprint": "edgeq.blueprint",
    "Bundle": "edgeq.bundle",
    "Conversion": "edgeq.conversion",
    "Device": "edgeq.values",
    "DeviceKind": "edgeq.values",
    "EdgeqError": "edgeq.errors",
    "ExitStatus": "edgeq.errors",
    "Inventory": "edgeq.fleet.inventory",
    "Metrics": "edgeq.values",
    "Recipe": "edgeq.conversion",
    "RunResult": "edgeq.pipeline",
    "Store": "edgeq.store",
    "Variant": "edgeq.values",
    "bench": "edgeq.benchmark",
    "collect": "edgeq.collector",
    "convert": "edgeq.conversion",
    "decide_experiment": "edgeq.experiment.end",
    "deploy_one": "edgeq.fleet.deploy",
    "draft_blueprint": "edgeq.drafting",
    "enrol": "edgeq.fleet.enrol",
    "evaluate": "edgeq.evaluation",
    "experiment_status": "edgeq.experiment.status",
    "judge": "edgeq.monitor",
    "load_blueprint": "edgeq.blueprint",
    "make_bundle": "edgeq.bundle",
    "open_agent": "edgeq.fleet.connect",
    "read_bundle": "edgeq.bundle",
    "run": "edgeq.pipeline",
    "select": "edgeq.selection",
    "start_experiment": "edgeq.experiment.start",
    "stop_experiment": "edgeq.experiment.end",
}

if TYPE_CHECKING:
    from edgeq.benchmark import bench
    from edgeq.blueprint import Blueprint, load_blueprint
    from edgeq.bundle import Bundle, make_bundle, read_bundle
    from edgeq.collector import collect
    from edgeq.conversion import Conversion, Recipe, convert
    from edgeq.drafting import draft_blueprint
    from edgeq.errors import EdgeqError, ExitStatus
    from edgeq.evaluation import evaluate
    from edgeq.experiment.end import decide_experiment, stop_experiment
    from edgeq.experiment.start import start_experiment
    from edgeq.experiment.status import experiment_status
    from edgeq.fleet.connect import open_agent
    from edgeq.fleet.deploy import deploy_one
    from edgeq.fleet.enrol import enrol
    from edgeq.fleet.inventory import Inventory
    from edgeq.monitor import judge
    from edgeq.pipeline import RunResult, run
    from edgeq.selection import select
    from edgeq.store import Store
    from edgeq.values import Device, DeviceKind, Metrics, Variant

__all__ = [
    "Blueprint",
    "Bundle",
    "Conversion",
    "Device",
    "DeviceKind",
    "EdgeqError",
    "ExitStatus",
    "Inventory",
    "Metrics",
    "Recipe",
    "RunResult",
    "Store",
    "Variant",
    "__version__",
    "bench",
    "collect",
    "convert",
    "decide_experiment",
    "deploy_one",
    "draft_blueprint",
    "enrol",
    "evaluate",
    "experiment_status",
    "judge",
    "load_blueprint",
    "make_bundle",
    "open_agent",
    "read_bundle",
    "run",
    "select",
    "start_experiment",
    "stop_experiment",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
