"""`edgeq check`: validate a blueprint and show its limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.ui import App, command
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.blueprint import Blueprint


def _schema(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        from edgeq.blueprint.schema import shipped

        click.echo(shipped(), nl=False)
        ctx.exit(0)


@command(
    "check",
    examples=["edgeq check blueprint.toml", "edgeq check blueprint.toml --kind raspberry-pi --json"],
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="Show the limits of this kind of device.",
)
@click.option(
    "--schema",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_schema,
    help="Print the JSON Schema of blueprints, for editors, and exit.",
)
def check_command(app: App, blueprint: Path, kind: str | None) -> None:
    """Validate BLUEPRINT (keys, quantities, files, targets that its data can show) and show its limits."""
    from edgeq.blueprint import load_blueprint
    from edgeq.drafting import examine_blueprint
    from edgeq.units import limit_key

    loaded = load_blueprint(blueprint)
    findings = examine_blueprint(loaded, blueprint)
    chosen = DeviceKind(kind) if kind else None
    applied = loaded.limits_for(chosen)
    limits = applied.stated()
    rows = [[limit_key(name), applied.text(name)] for name in limits]
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
            "samples": findings.samples,
            "notes": list(findings.notes),
            "warnings": list(findings.warnings),
        },
    )
    app.ui.remarks(notes=findings.notes, warnings=findings.warnings)
    for other in loaded.kinds_with_other_limits(chosen):
        app.ui.note(f"{other} has limits of its own; --kind {other} shows them")
    app.ui.say(f"{blueprint}: {loaded.name}, schemes {', '.join(loaded.schemes)}")
    app.ui.next(*_conversion(loaded))


def _conversion(blueprint: Blueprint) -> list[str | Path]:
    """Return the command that makes the blueprint's last variant."""
    scheme = blueprint.schemes[-1]
    words: list[str | Path] = ["convert", blueprint.source, "-o", f"{blueprint.name}-{scheme}.tflite"]
    words += ["--scheme", scheme.value]
    if scheme.needs_ranges and blueprint.calibration is not None:
        words += ["--calibration", blueprint.calibration]
    if scheme.needs_ranges and blueprint.io is not None:
        words += ["--io", blueprint.io]
    return words
