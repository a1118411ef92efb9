"""`edgeq bundle`: make a signed, deployable bundle of a model, its golden inputs and its drift reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.ui import App, command
from edgeq.errors import ModelError, UsageError
from edgeq.units import format_size
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.bundle import Bundle

FILE = click.Path(path_type=Path)


class _MakeOrVerify(click.Group):
    """`edgeq bundle MODEL` makes one; `edgeq bundle verify FILE` checks one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["verify"]  # making one is the group itself


@click.group("bundle", cls=_MakeOrVerify)
def bundle_command() -> None:
    """Make a signed bundle of a model, or verify one."""


@command(
    "make",
    examples=[
        "edgeq bundle int8.tflite -o kws.eqb --name kws --data evaluation.npz",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --kind raspberry-pi",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --sign release",
        "edgeq bundle verify kws.eqb",
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
@click.option(
    "--sign",
    "signers",
    multiple=True,
    metavar="KEY",
    help="A key of this workspace by name, or a private key file; once for each. Else the workspace's own.",
)
@click.option(
    "--counter",
    type=click.IntRange(1),
    help="The release's number; devices take only higher ones. Else one more than the newest here.",
)
def _make(
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
    signers: tuple[str, ...],
    counter: int | None,
) -> None:
    """Make a signed bundle of MODEL.tflite."""
    from edgeq.blueprint import load_blueprint
    from edgeq.bundle import make_bundle
    from edgeq.bundle.counters import exactly, following
    from edgeq.bundle.keys import WORKSPACE_KEY, find_private
    from edgeq.files import sha256_of
    from edgeq.store import Store

    if not model.is_file():
        raise ModelError(
            str(model), "no such model", hint="`edgeq convert` writes the .tflite that goes in", code="EQ301"
        )
    plan = load_blueprint(blueprint) if blueprint else None
    name = name or (plan.name if plan else None)
    data = data or (plan.evaluation if plan else None)
    if name is None or data is None:
        missing = "--name" if name is None else "--data"
        raise UsageError(missing, "is needed without a blueprint", hint=f"add {missing} or --blueprint")
    devices = [DeviceKind(kind) for kind in kinds]
    with Store.open(app.workspace) as store:
        known = [record.manifest for record in store.releases()]
    keys = [find_private(app.workspace, key) for key in signers or (WORKSPACE_KEY,)]
    digest = sha256_of(model)
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
        lineage={"model": digest, **({"blueprint": plan.digest} if plan else {})},
        counter=following(known) if counter is None else exactly(counter, known),
        keys=keys,
    )
    with Store.open(app.workspace) as store:
        store.put_release(made.release, made.manifest, made.reference)
        store.record_run("bundle", name, {"release": made.release, "path": str(output)})
    app.ui.emit("edgeq.bundle/1", _told(output, made))
    app.ui.line(
        f"{output}: {made.model} {made.release[:12]}, release {made.parsed.counter}, "
        f"{format_size(made.size_bytes)}, signed by {_names(made)}"
    )
    app.ui.next(f"edgeq deploy {output} --to DEVICE")


@command(
    "verify",
    examples=[
        "edgeq bundle verify kws.eqb",
        "edgeq bundle verify kws.eqb --key publisher.pub --json",
    ],
)
@click.argument("bundle", type=FILE)
@click.option(
    "--key",
    "keys",
    multiple=True,
    help="Whom to believe: a key of this workspace by name, or a .pub file. Else all keys of this workspace.",
)
def _verify(app: App, bundle: Path, keys: tuple[str, ...]) -> None:
    """Check the bytes and the signature of BUNDLE, and say who signed it."""
    from edgeq.bundle import read_bundle
    from edgeq.bundle.keys import find_public, known_keys
    from edgeq.errors import SignatureInvalid, UnknownSigner

    found = read_bundle(bundle)
    if not found.signed_by:
        raise SignatureInvalid(str(bundle), "is not signed")
    trusted = [find_public(app.workspace, key) for key in keys] if keys else known_keys(app.workspace)
    believed = {key.id for key in trusted}
    if not believed & {signature.key.id for signature in found.signed_by}:
        raise UnknownSigner(
            str(bundle),
            expected=f"a signature of {' or '.join(sorted(believed)) or 'a key that is known here'}",
            got=f"one of {_names(found)}",
        )
    app.ui.emit("edgeq.bundle.verify/1", _told(bundle, found))
    app.ui.line(f"{bundle}: {found.model} {found.release[:12]}, release {found.parsed.counter}")
    app.ui.line(f"every file is what the manifest says; signed by {_names(found)}")


for _command in (_make, _verify):
    bundle_command.add_command(_command)


def _told(path: Path, bundle: Bundle) -> dict[str, Any]:
    return {
        "path": str(path),
        "release": bundle.release,
        "model": bundle.model,
        "variant": bundle.parsed.variant,
        "counter": bundle.parsed.counter,
        "signed_by": [{"key": entry.key.id, "name": entry.key.name} for entry in bundle.signed_by],
        "size_bytes": bundle.size_bytes,
        "golden_samples": bundle.parsed.golden.samples,
        "files": {file: entry.sha256 for file, entry in bundle.parsed.files.items()},
    }


def _names(bundle: Bundle) -> str:
    return ", ".join(f"{entry.key.name} ({entry.key.id})" for entry in bundle.signed_by)
