"""`edgeq select`: evaluate variants on the blueprint's data and choose the best within every limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import App, command
from edgeq.units import format_percent, format_size
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.selection import Candidate


@command(
    "select",
    examples=[
        "edgeq select blueprint.toml --reference float32.tflite float16.tflite int8.tflite",
        "edgeq select blueprint.toml --reference float32.tflite int8.tflite --kind raspberry-pi --json",
    ],
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.argument("variants", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reference", required=True, type=click.Path(path_type=Path), help="Float .tflite model.")
@click.option("--strict", is_flag=True, help="Fail if the chosen variant is useless (EQ334).")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="Apply the limits of this kind of device.",
)
def select_command(
    app: App, blueprint: Path, variants: tuple[Path, ...], reference: Path, strict: bool, kind: str | None
) -> None:
    """Choose among VARIANTS by BLUEPRINT; exit status 3 if none meets every limit."""
    from edgeq.blueprint import load_blueprint
    from edgeq.evaluation.evaluation import judged
    from edgeq.selection import evaluate_variants, require_chosen, select
    from edgeq.store import Store

    loaded = load_blueprint(blueprint)
    with app.ui.progress("evaluating", len(variants)) as advance:
        baseline, evaluated = evaluate_variants(
            variants, reference=reference, blueprint=loaded, on_evaluated=lambda: advance(1)
        )
    with Store.open(app.workspace) as store:
        selection = select(
            evaluated,
            baseline=baseline,
            blueprint=loaded,
            kind=DeviceKind(kind) if kind else None,
            store=store,
        )
    if others := loaded.kinds_with_other_limits(DeviceKind(kind) if kind else None):
        app.ui.warn(f"the limits of {', '.join(others)} were not applied; --kind applies them")
    app.ui.table(
        ["variant", "size", "accuracy", "worst SQNR", "front", "limits"],
        [_row(candidate) for candidate in selection.candidates],
    )
    chosen = require_chosen(selection, subject=str(blueprint))
    if useless := judged(chosen.variant.path, chosen.variant.metrics, strict=strict):
        app.ui.warn(useless)
    app.ui.emit("edgeq.select/1", selection.to_json())
    app.ui.say(f"chosen: {chosen.variant.name} ({format_size(chosen.variant.size_bytes)})")
    of_kind = () if kind is None else ("--kind", kind)
    app.ui.next(
        *("bundle", chosen.variant.path, "-o", f"{loaded.name}.eqb", "--blueprint", blueprint), *of_kind
    )


def _row(candidate: Candidate) -> list[str]:
    metrics = candidate.variant.metrics
    return [
        candidate.variant.name,
        format_size(candidate.variant.size_bytes),
        "-" if metrics.accuracy is None else format_percent(metrics.accuracy),
        "-" if metrics.worst_sqnr_db is None else f"{metrics.worst_sqnr_db:.1f} dB",
        "yes" if candidate.on_front else "no",
        candidate.limits_text,
    ]
