"""Public interface: exactly these names, each with a docstring."""

from __future__ import annotations

from pathlib import Path

import edgeq

GOLDEN = [
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


def test_the_public_names() -> None:
    assert sorted(edgeq.__all__) == sorted(GOLDEN)
    assert len(GOLDEN) <= 32
    assert dir(edgeq) == sorted(GOLDEN)


def test_every_name_loads_and_has_a_docstring() -> None:
    for name in GOLDEN:
        value = getattr(edgeq, name)
        assert name == "__version__" or value.__doc__, name


def test_no_subpackage_hides_a_name(project_root: Path) -> None:
    # `import edgeq.convert` would replace the function `edgeq.convert` with a module of that name.
    parts = {path.stem for path in (project_root / "edgeq").iterdir()}
    assert not parts & set(GOLDEN)
