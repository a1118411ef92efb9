"""`edgeq bundle`: make a deployable bundle of a model, its golden inputs and its drift reference."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.ui import App, command
from edgeq.errors import UsageError
from edgeq.units import format_size
from edgeq.values import DeviceKind

FILE = click.Path(path_type=Path)


@command(
    "bundle",
    examples=[
        "edgeq bundle int8.tflite -o kws.eqb --name kws --data evaluation.npz",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --kind raspberry-pi",
    ],
)
@click.argument("model", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="The .eqb file to write.")
@click.option("--name", help="Name under which devices serve it; else the blueprint's.")
@click.option("--variant", help="What the model is; else the file's name.")
@click.option(
    "--data", type=FILE, help="Samples that it was not trained on; else the blueprint's evaluation set."
)
@click.option("--blueprint", type=FILE, help="Take name, data, labels and limits from here.")
@click.option("--label", "labels", multiple=True, help="Name of the next class; once for each.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="For such devices only.",
)
@click.option("--golden", default=16, show_default=True, type=click.IntRange(1, 1000), help="Golden samples.")
@click.option(
    "--golden-steps",
    default=16,
    show_default=True,
    type=click.IntRange(0, 255),
    help="How far integer outputs may be off on another runtime or processor; on this one's, not at all.",
)
def bundle_command(
    app: App,
    model: Path,
    output: Path,
    name: str | None,
    variant: str | None,
    data: Path | None,
    blueprint: Path | None,
    labels: tuple[str, ...],
    kinds: tuple[str, ...],
    golden: int,
    golden_steps: int,
) -> None:
    """Make a bundle of MODEL.tflite."""
    from edgeq.blueprint import load_blueprint
    from edgeq.bundle import make_bundle
    from edgeq.files import sha256_of
    from edgeq.store import Store

    plan = load_blueprint(blueprint) if blueprint else None
    name = name or (plan.name if plan else None)
    data = data or (plan.evaluation if plan else None)
    if name is None or data is None:
        missing = "--name" if name is None else "--data"
        raise UsageError(missing, "is needed without a blueprint", hint=f"add {missing} or --blueprint")
    devices = [DeviceKind(kind) for kind in kinds]
    made = make_bundle(
        output,
        model_file=model,
        name=name,
        variant=variant or model.stem,
        data=data,
        labels=labels or (plan.labels if plan else ()),
        kinds=devices,
        # Limits of one kind of device hold only where the bundle is for that kind alone.
        limits=plan.limits_for(devices[0] if len(devices) == 1 else None) if plan else None,
        golden_samples=golden,
        golden_steps=golden_steps,
        lineage={"model": sha256_of(model), **({"blueprint": plan.digest} if plan else {})},
    )
    with Store.open(app.workspace) as store:
        store.put_release(made.release, made.manifest, made.reference)
        store.record_run("bundle", name, {"release": made.release, "path": str(output)})
    app.ui.emit(
        "edgeq.bundle/1",
        {
            "path": str(output),
            "release": made.release,
            "model": made.model,
            "variant": made.parsed.variant,
            "size_bytes": made.size_bytes,
            "golden_samples": made.parsed.golden.samples,
            "files": {file: entry.sha256 for file, entry in made.parsed.files.items()},
        },
    )
    app.ui.line(f"{output}: {made.model} {made.release[:12]}, {format_size(made.size_bytes)}")
    app.ui.next(f"edgeq deploy {output} --to DEVICE")
