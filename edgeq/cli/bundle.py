"""`edgeq bundle`: create a signed, deployable bundle of a model, or verify one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import selector_option
from edgeq.cli.outputs import check_outputs
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import ModelError, UsageError
from edgeq.units import format_size
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.bundle import Bundle

FILE = click.Path(path_type=Path)


class _BundleGroup(CommandGroup):
    """`edgeq bundle MODEL` creates a bundle; `edgeq bundle show` and `verify` look at one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            args = ["make", "--help"]
        elif _first_word(args) not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["show", "verify"]  # creating one is the group's own action


def _first_word(args: list[str]) -> str | None:
    """Return the first argument that is neither a global option nor the value of one."""
    words = iter(args)
    for word in words:
        if word == "--workspace":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


@click.group("bundle", cls=_BundleGroup)
def bundle_command() -> None:
    """Create a signed bundle of a model, or verify one."""


@command(
    "make",
    examples=[
        "edgeq bundle int8.tflite -o kws.eqb --name kws --data evaluation.npz",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --kind raspberry-pi",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --sign release",
        "edgeq bundle int8.tflite -o kws.eqb --blueprint blueprint.toml --for label:site=lab",
        "edgeq bundle int8_edgetpu.tflite --golden-from int8.tflite --with-cpu -o kws.eqb --blueprint b.toml",
        "edgeq bundle verify kws.eqb",
    ],
)
@click.argument("model", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="The .eqb file to write.")
@click.option("--name", help="Name under which devices serve it.  [default: the blueprint's]", metavar="NAME")
@click.option(
    "--variant", help="What the model is, such as int8.  [default: the file's name]", metavar="NAME"
)
@click.option(
    "--data",
    type=FILE,
    help="Samples that the model was not trained on.  [default: the blueprint's evaluation set]",
)
@click.option(
    "--golden-from",
    type=FILE,
    metavar="MODEL",
    help="For a MODEL that was compiled for the Edge TPU: the .tflite that it was compiled from. Its "
    "outputs on the CPU are the golden ones; the bundle is for Coral devices unless --kind is given.",
)
@click.option(
    "--with-cpu",
    is_flag=True,
    help="Put the model of --golden-from into the bundle, too; it serves where no Edge TPU is.",
)
@click.option(
    "--sequence",
    is_flag=True,
    help="The samples follow each other, as for `edgeq evaluate`; for the drift reference of a model that "
    "keeps state.",
)
@click.option("--blueprint", type=FILE, help="Blueprint with the name, data, labels and limits.")
@click.option(
    "--label", "labels", multiple=True, help="Name of the next class; repeat for each class.", metavar="NAME"
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="Restrict the bundle to this kind of device; repeatable.",
)
@selector_option(
    "--for",
    required=False,
    help="Restrict the bundle to this device, label:KEY=VALUE, or all of now; repeatable.",
)
@click.option(
    "--golden", default=16, show_default=True, type=click.IntRange(1, 1000), help="Number of golden samples."
)
@click.option(
    "--golden-steps",
    default=16,
    show_default=True,
    type=click.IntRange(0, 255),
    help="Steps by which integer outputs may differ on another runtime or processor.",
)
@click.option(
    "--sign",
    "signers",
    multiple=True,
    metavar="KEY",
    shell_complete=completing.keys,
    help=(
        "Sign with this key, a name or a private key file; repeatable.  "
        "[default: as the trust document says, else the workspace's]"
    ),
)
@click.option("--strict", is_flag=True, help="Fail if the model is useless on the data (EQ334).")
@click.option(
    "--counter",
    type=click.IntRange(1, 2**53 - 1),
    help="Release counter; devices accept only higher ones.  [default: the newest here plus 1]",
)
def _make(
    app: App,
    model: Path,
    output: Path,
    name: str | None,
    variant: str | None,
    data: Path | None,
    golden_from: Path | None,
    with_cpu: bool,
    sequence: bool,
    blueprint: Path | None,
    labels: tuple[str, ...],
    kinds: tuple[str, ...],
    selectors: tuple[str, ...],
    golden: int,
    golden_steps: int,
    signers: tuple[str, ...],
    strict: bool,
    counter: int | None,
) -> None:
    """Create a signed bundle of MODEL.tflite."""
    from edgeq.blueprint import load_blueprint
    from edgeq.bundle import make_bundle
    from edgeq.bundle.counters import exactly, following
    from edgeq.bundle.make import usual_kinds
    from edgeq.bundle.signers import release_signers
    from edgeq.cli.signing import passphrase_of, private_keys
    from edgeq.files import sha256_of
    from edgeq.fleet.trust_documents import counted_releases, withdrawn_releases
    from edgeq.store import Store

    for file in (model, golden_from):
        if file is not None and not file.is_file():
            raise ModelError(
                str(file),
                "no such model",
                hint="create the .tflite with `edgeq convert SOURCE -o MODEL`",
                code="EQ301",
            )
    check_outputs((("-o", output),), inputs=(model, golden_from, data, blueprint))
    if with_cpu and golden_from is None:
        raise UsageError("--with-cpu", "needs the model for the CPU", hint="add --golden-from MODEL.tflite")
    plan = load_blueprint(blueprint) if blueprint else None
    name = name or (plan.name if plan else None)
    data = data or (plan.evaluation if plan else None)
    if name is None or data is None:
        missing = "--name" if name is None else "--data"
        raise UsageError(missing, "is required without a blueprint", hint=f"add {missing} or --blueprint")
    devices = [DeviceKind(kind) for kind in kinds] or list(
        usual_kinds(is_compiled=golden_from is not None, with_cpu=with_cpu)
    )
    of_kind = devices[0] if len(devices) == 1 else None
    if plan and (others := plan.kinds_with_other_limits(of_kind)):
        app.ui.warn(
            f"the limits of {', '.join(others)} are not in the bundle; --kind with one kind adds them"
        )
    targets = _ids(app, selectors) if selectors else ()
    with Store.open(app.workspace) as store:
        known = counted_releases(app.workspace, store)
        withdrawn = withdrawn_releases(app.workspace, store)
    keys = private_keys(app, signers) if signers else release_signers(app.workspace, passphrase_of(app))
    digest = sha256_of(model)
    made = make_bundle(
        output,
        model_file=model,
        name=name,
        variant=variant or model.stem,
        data=data,
        golden_from=golden_from,
        with_cpu=with_cpu,
        sequence=sequence,
        task=plan.task if plan else None,
        labels=labels or (plan.labels if plan else ()),
        kinds=devices,
        devices=targets,
        # Limits of one kind of device apply only to a bundle for that kind alone.
        limits=plan.limits_for(of_kind) if plan else None,
        golden_samples=golden,
        golden_steps=golden_steps,
        lineage={
            "model": digest,
            **({"compiled_from": sha256_of(golden_from)} if golden_from is not None else {}),
            **({"blueprint": plan.digest} if plan else {}),
        },
        counter=following(known, withdrawn) if counter is None else exactly(counter, known),
        keys=keys,
        strict=strict,
        on_warning=app.ui.warn,
        workspace=app.workspace,
    )
    app.ui.emit("edgeq.bundle/1", _to_dict(output, made))
    app.ui.line(
        f"{output}: {made.model} {made.release[:12]}, counter {made.parsed.counter}, "
        f"{format_size(made.size_bytes)}, signed by {_names(made)}"
    )
    app.ui.next("deploy", output, "--to", "DEVICE")


def _ids(app: App, selectors: tuple[str, ...]) -> list[str]:
    """Return the ids of the selected devices."""

    devices = app.inventory().select(selectors)
    for device in devices:
        if device.device_id is None:
            raise UsageError(
                f"device {device.name!r}",
                "was enrolled before ids were kept, so no bundle can name it",
                hint=f"run `edgeq devices remove {device.name}`, then enrol it again",
            )
    return [device.device_id for device in devices if device.device_id is not None]


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
    help="Trust this key: a key name or a .pub file; repeatable.  "
    "[default: those of the trust document, else all keys of this workspace]",
    metavar="KEY",
)
def _verify(app: App, bundle: Path, keys: tuple[str, ...]) -> None:
    """Verify the files and the signature of BUNDLE, and show who signed it."""
    from edgeq.bundle import read_bundle
    from edgeq.bundle.keys import find_public, known_keys
    from edgeq.bundle.trust_chain import chain_path, load_chain
    from edgeq.errors import SignatureInvalid, UnknownSigner

    checked = read_bundle(bundle)
    if not checked.signed_by:
        raise SignatureInvalid(str(bundle), "is not signed")
    document = load_chain(chain_path(app.workspace)).latest
    threshold = 1
    if keys:
        trusted_ids = {find_public(app.workspace, key).id for key in keys}
    elif document is not None:
        trusted_ids, threshold = set(document.roles.release.keys), document.roles.release.threshold
    else:
        trusted_ids = {key.id for key in known_keys(app.workspace)}
    if len(trusted_ids & {signature.key.id for signature in checked.signed_by}) < threshold:
        count = f"{threshold} of " if threshold > 1 else ""
        raise UnknownSigner(
            str(bundle),
            expected=f"a signature of {count}{' or '.join(sorted(trusted_ids)) or 'a known key'}",
            got=f"one of {_names(checked)}",
        )
    app.ui.emit("edgeq.bundle.verify/1", _to_dict(bundle, checked))
    app.ui.line(f"{bundle}: {checked.model} {checked.release[:12]}, counter {checked.parsed.counter}")
    app.ui.line(f"all files match the manifest; signed by {_names(checked)}")


@command("show", examples=["edgeq bundle show kws.eqb", "edgeq bundle show kws.eqb --json"])
@click.argument("bundle", type=FILE)
@click.option("--sbom", type=FILE, help="Write the SBOM (CycloneDX JSON) to this file.")
def _show(app: App, bundle: Path, sbom: Path | None) -> None:
    """Show what BUNDLE is, who signed it, and what its model was made of."""
    from edgeq.bundle import read_bundle
    from edgeq.bundle.provenance import materials_of
    from edgeq.errors import BundleError
    from edgeq.files import write_atomic

    checked = read_bundle(bundle)
    provenance = checked.provenance
    if sbom is not None:
        if provenance is None or checked.parsed.provenance is None:
            raise BundleError(str(bundle), "has no SBOM", hint="make it again with this version of edgeq")
        write_atomic(sbom, checked.open(checked.parsed.provenance.sbom))
    parsed = checked.parsed
    app.ui.line(
        f"{bundle}: {checked.model} {checked.release[:12]}, counter {parsed.counter}, {parsed.variant}"
    )
    app.ui.line(f"signed by {_names(checked)}" if checked.signed_by else "not signed")
    app.ui.table(
        ["file", "sha256", "size"],
        [[name, each.sha256[:12], format_size(each.size_bytes)] for name, each in parsed.files.items()],
    )
    if provenance is not None:
        rows = [[each.role, each.name, each.sha256[:12]] for each in materials_of(provenance.statement)]
        app.ui.table(["made of", "name", "sha256"], rows)
        versions = provenance.statement["predicate"]["runDetails"]["builder"].get("version", {})
        app.ui.line(f"made with {', '.join(f'{name} {number}' for name, number in versions.items())}")
    else:
        app.ui.line("it does not say what it was made of")
    documents = {
        "sbom": None if provenance is None else dict(provenance.sbom),
        "statement": None if provenance is None else dict(provenance.statement),
    }
    app.ui.emit("edgeq.bundle.show/1", {**_to_dict(bundle, checked), **documents})
    app.ui.next("bundle", "verify", bundle)


for _command in (_make, _show, _verify):
    bundle_command.add_command(_command)


def _to_dict(path: Path, bundle: Bundle) -> dict[str, Any]:
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
