"""`edgeq run`: from a blueprint to a model that meets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.device_options import yes_option
from edgeq.cli.options import LIMITS_KIND_OPTION, require_kind
from edgeq.cli.outputs import check_outputs
from edgeq.cli.ui import App, Ui, command
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.blueprint import Blueprint
    from edgeq.pipeline import RunResult, TimedTarget
    from edgeq.selection import Candidate
    from edgeq.store import Store
    from edgeq.values import Device


@command(
    "run",
    help="Find the model that meets BLUEPRINT: quantize, correct, mix precisions, prune and train until "
    "every limit holds.",
    examples=[
        "edgeq run blueprint.toml",
        "edgeq run blueprint.toml --device pi --device coral",
        "edgeq run blueprint.toml --device pi --deploy --yes",
        "edgeq run blueprint.toml --explore -o best.tflite",
        "edgeq run blueprint.toml --html page.html --markdown summary.md",
        "edgeq run blueprint.toml --json",
    ],
)
@click.argument("blueprint", type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="Time the candidates on this device instead of this machine, and apply its limits (repeatable).",
    shell_complete=completing.devices,
    metavar="DEVICE",
)
@LIMITS_KIND_OPTION
@click.option("--explore", is_flag=True, help="Run every phase, for the Pareto front.")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of candidates to build side by side.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Build the candidates on the workers of this dask scheduler: tcp://HOST:PORT.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the chosen model to this file.  [default: beside the blueprint, under its name; "
    "NAME-edgeq.tflite where that is the source]",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    help="Write a page on the run that needs no network: verdict, plots, tables, provenance.",
    metavar="PAGE.html",
)
@click.option(
    "--markdown",
    "summary",
    type=click.Path(path_type=Path),
    help="Write a summary for a pull request or a job.",
    metavar="FILE.md",
)
@click.option("--force", is_flag=True, help="Replace an output that no run has written.")
@click.option(
    "--deploy", is_flag=True, help="Bundle the chosen model and deploy it to the devices of --device."
)
@click.option(
    "--stages",
    metavar="STAGES",
    help="With --deploy: deploy in stages: 1,10%,50%,100%, label:KEY=VALUE, or all.",
)
@click.option("--soak", metavar="DURATION", help="With --deploy: soak time before the release is committed.")
@yes_option
def run_command(
    app: App,
    blueprint: Path,
    devices: tuple[str, ...],
    kind: str | None,
    explore: bool,
    jobs: int,
    scheduler: str | None,
    output: Path | None,
    page: Path | None,
    summary: Path | None,
    force: bool,
    deploy: bool,
    stages: str | None,
    soak: str | None,
    yes: bool,
) -> None:
    """Run a blueprint; exit status 3 if no candidate meets every limit."""
    from edgeq.blueprint import load_blueprint
    from edgeq.cli.bundle import bundle_command
    from edgeq.cli.deploy import deploy_command
    from edgeq.cli.run_display import display_of
    from edgeq.drafting import examine_blueprint
    from edgeq.errors import GateError, UsageError
    from edgeq.files import write_atomic
    from edgeq.pipeline import run
    from edgeq.pipeline.executors import executor_of
    from edgeq.pipeline.page import require_page_libraries
    from edgeq.search.remarks import remarks_on
    from edgeq.store import Store

    if deploy and not devices:
        raise UsageError("--deploy", "needs the devices", hint="add --device NAME, once for each device")
    if (stages or soak) and not deploy:
        raise UsageError("--stages" if stages else "--soak", "deploys nothing", hint="add --deploy")
    loaded = load_blueprint(blueprint)
    named = _named_devices(app, devices, kind)
    path = output or _usual_output(blueprint, loaded)
    inputs = (
        blueprint,
        loaded.source,
        loaded.calibration,
        loaded.evaluation,
        loaded.training,
        loaded.validation,
    )
    bundle = path.with_suffix(".eqb")
    outputs = (
        ("-o", path),
        ("--deploy", bundle if deploy else None),
        ("--html", page),
        ("--markdown", summary),
    )
    check_outputs(outputs, inputs=inputs)
    if page is not None:
        require_page_libraries()
    with executor_of(jobs=jobs, scheduler=scheduler) as executor, Store.open(app.workspace) as store:
        if not force:
            _require_own(path, store)
        findings = examine_blueprint(loaded, blueprint)
        app.ui.remarks(notes=(), warnings=findings.warnings)
        with display_of(app.ui) as display:
            result = run(
                loaded,
                workspace=app.workspace,
                targets=_targets(app, loaded, named, store),
                kind=None if kind is None else DeviceKind(kind),
                explore=explore,
                executor=executor,
                store=store,
                on_event=display.on_event,
                on_progress=display.on_progress,
            )
    _show(app.ui, result)
    _write_reports(app.ui, result, page, summary)
    applied = result.targets[0].kind
    remarks = remarks_on(loaded, kind=applied, on_device=bool(devices))
    app.ui.remarks(notes=result.notes, warnings=remarks.warnings)
    document = {**result.to_json(), "warnings": [*findings.warnings, *remarks.warnings]}
    chosen = result.chosen
    if chosen is None:
        app.ui.emit("edgeq.run/1", document)
        raise GateError(str(blueprint), result.verdict, hint=result.advice)
    write_atomic(path, chosen.variant.path.read_bytes())
    app.ui.emit("edgeq.run/1", {**document, "path": str(path)})
    app.ui.say(f"wrote {path}")
    kinds = sorted({target.kind.value for target in result.targets if target.kind is not None})
    if not deploy:
        of_kind = ("--kind", kinds[0]) if len(kinds) == 1 else ()
        app.ui.next("bundle", path, "-o", bundle, "--blueprint", blueprint, *of_kind)
        return
    ctx = click.get_current_context()
    ctx.invoke(
        bundle_command.commands["make"],
        model=path,
        output=bundle,
        variant=chosen.variant.name,
        blueprint=blueprint,
        kinds=tuple(kinds),
        json_output=app.ui.as_json,
    )
    ctx.invoke(
        deploy_command,
        bundle=bundle,
        selectors=devices,
        stages=stages,
        soak=soak,
        yes=yes,
        json_output=app.ui.as_json,
    )


def _write_reports(ui: Ui, result: RunResult, page: Path | None, summary: Path | None) -> None:
    """Write the page and the summary that were asked for, also of a run that chose no model."""
    from edgeq.files import write_atomic
    from edgeq.pipeline.markdown import run_markdown
    from edgeq.pipeline.page import run_page

    if page is not None:
        write_atomic(page, run_page(result).encode("utf-8"))
        ui.say(f"wrote {page}")
    else:
        ui.note("--html PAGE.html writes a page on the run; a second run is cached")
    if summary is not None:
        write_atomic(summary, run_markdown(result).encode("utf-8"))
        ui.say(f"wrote {summary}")


def _usual_output(path: Path, blueprint: Blueprint) -> Path:
    """Return the output beside the blueprint, under its name; under a longer one where that is the source."""
    output = path.parent / f"{blueprint.name}.tflite"
    if output.resolve() == blueprint.source.resolve():
        return path.parent / f"{blueprint.name}-edgeq.tflite"
    return output


def _named_devices(app: App, names: tuple[str, ...], kind: str | None) -> list[Device]:
    """Return the named devices, each once.

    Raises:
        UsageError: a device is not enrolled, or has another kind than the named one.
    """
    inventory = app.inventory() if names else None
    devices = [] if inventory is None else [inventory.get(name) for name in dict.fromkeys(names)]
    for device in devices:
        require_kind(kind, device)
    return devices


def _targets(app: App, blueprint: Blueprint, devices: list[Device], store: Store) -> list[TimedTarget]:
    """Return the devices as targets; none stands for this machine."""
    if not devices:
        return []
    from edgeq.pipeline import TimedTarget
    from edgeq.search.on_device import OnDevice

    return [
        TimedTarget(
            name=device.name,
            kind=device.kind,
            timing=OnDevice(
                device, blueprint=blueprint, workspace=app.workspace, store=store, say=app.ui.warn
            ),
        )
        for device in devices
    ]


def _require_own(path: Path, store: Store) -> None:
    """Check that a file that would be replaced was written by a run.

    Raises:
        UsageError: it was not.
    """
    from edgeq.conversion.recorded_lineage import lineages_by_digest
    from edgeq.errors import UsageError
    from edgeq.files import sha256_of

    if path.is_file() and sha256_of(path) not in lineages_by_digest(store):
        raise UsageError(
            str(path),
            expected="a new file, or one that edgeq has made",
            got="another file",
            hint="give another -o, or --force to replace it",
        )


def _show(ui: Ui, result: RunResult) -> None:
    ui.table(
        ["candidate", "size", "p50", "accuracy", "drop", "worst SQNR", "limits"],
        [_row(result, each) for each in result.selection.candidates],
    )
    for each in result.built:
        if each.variant is None:
            ui.line(f"{each.name}: not built: {each.problem}")
    for phase in result.skipped:
        ui.line(f"{phase.phase}: left out: {phase.reason}")
    ui.line()
    if result.chosen is not None:
        ui.line(result.verdict)
    if result.reused:
        ui.line(f"{result.reused} of {result.reused + result.done} steps were cached")


def _row(result: RunResult, candidate: Candidate) -> list[str]:
    from edgeq.units import format_duration, format_percent, format_size

    variant, metrics = candidate.variant, candidate.variant.metrics
    latencies = [target.latencies.get(variant.sha256) for target in result.targets]
    return [
        variant.name,
        format_size(variant.size_bytes),
        " / ".join("-" if each is None else format_duration(each.p50_ns) for each in latencies),
        "-" if metrics.accuracy is None else format_percent(metrics.accuracy),
        "-" if metrics.accuracy_drop is None else f"{100 * metrics.accuracy_drop + 0.0:+.1f}",
        _db(metrics.worst_sqnr_db),
        candidate.limits_text,
    ]


def _db(value: float | None) -> str:
    import math

    if value is None:
        return "-"
    return "no noise" if math.isinf(value) else f"{value:.1f} dB"
