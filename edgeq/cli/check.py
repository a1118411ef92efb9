"""`edgeq check`: validate a blueprint and show its limits."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.ui import App, command
from edgeq.values import DeviceKind


@command(
    "check", examples=["edgeq check blueprint.toml", "edgeq check blueprint.toml --kind raspberry-pi --json"]
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="Show the limits of this kind of device.",
)
def check_command(app: App, blueprint: Path, kind: str | None) -> None:
    """Validate BLUEPRINT (known keys, quantities with units, existing files) and show its limits."""
    from edgeq.blueprint import load_blueprint
    from edgeq.units import format_limit, limit_key

    loaded = load_blueprint(blueprint)
    limits = loaded.limits_for(DeviceKind(kind) if kind else None).stated()
    rows = [[limit_key(name), format_limit(name, value)] for name, value in limits.items()]
    app.ui.table(["limit", "value"], rows or [["none", "-"]])
    app.ui.emit(
        "edgeq.check/1",
        {
            "name": loaded.name,
            "digest": loaded.digest,
            "source": str(loaded.source),
            "schemes": [scheme.value for scheme in loaded.schemes],
            "prefer": [preference.value for preference in loaded.prefer],
            "limits": limits,
        },
    )
    app.ui.say(f"{blueprint}: {loaded.name}, schemes {', '.join(loaded.schemes)}")
    app.ui.next(f"edgeq convert {loaded.source} -o {loaded.name}.tflite --scheme {loaded.schemes[-1]}")
