"""`edgeq ab`: compare two releases; start, show and end an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.ab.decide import decide_command, stop_command
from edgeq.cli.ab.status import list_command, status_command
from edgeq.cli.device_options import DEPLOY_RETRIES, retries_option, retry_policy, to_option, yes_option
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.options import Number
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import ExperimentError
from edgeq.units import format_percent

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.experiment import Experiment, ExperimentConfig
    from edgeq.store import Store
    from edgeq.values import Device


@click.group("ab", cls=CommandGroup)
def ab_command() -> None:
    """Compare two releases: side by side on the same devices, or split across devices."""


@command(
    "start",
    examples=[
        "edgeq ab start kws-new.eqb --to all",
        "edgeq ab start kws-new.eqb --to label:site=lab --share 0.2 --by devices",
        "edgeq ab start kws-new.eqb --to pi --share 0.5 --worse-by 0.01 --json",
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@to_option
@click.option(
    "--share",
    default=0.1,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="Share of the new release.",
)
@click.option(
    "--by",
    default="calls",
    show_default=True,
    type=click.Choice(["calls", "devices"]),
    help="Split the calls of each device, or the devices.",
)
@click.option("--salt", help="Seed of the assignment. [default: the experiment's name]")
@click.option(
    "--alpha",
    default=0.05,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="Probability that any interval is wrong at any look.",
)
@click.option(
    "--worse-by",
    default=0.02,
    show_default=True,
    type=Number(0, 1),
    help="Largest loss of accuracy that still allows a promotion.",
)
@click.option(
    "--slower-by",
    default=0.1,
    show_default=True,
    type=Number(0, 10),
    help="Largest increase of latency (p95) that still allows a promotion.",
)
@retries_option(DEPLOY_RETRIES)
@yes_option
def start_command(
    app: App,
    bundle: Path,
    selectors: tuple[str, ...],
    share: float,
    by: str,
    salt: str | None,
    alpha: float,
    worse_by: float,
    slower_by: float,
    retries: int,
    yes: bool,
) -> None:
    """Stage BUNDLE beside the current release, and give it its share; a second run resumes."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.inventory import Inventory
    from edgeq.store import Store

    content = read_bundle(bundle)
    devices = Inventory.load(app.workspace).select(selectors)
    if salt is not None and not (0 < len(salt) <= 200 and salt.isprintable()):
        raise click.UsageError("--salt: expected a printable text of at most 200 characters")
    options = {
        "by": by, "share": share, "salt": salt, "alpha": alpha, "worse_by": worse_by, "slower_by": slower_by
    }  # fmt: skip
    question = (
        f"Stage {content.model} {content.release[:12]} beside the current release on {len(devices)} devices?"
    )
    if not app.ui.confirm(question, yes=yes):
        app.ui.say("nothing was changed")
        return
    with Store.open(app.workspace) as store:
        experiment = _begin(app, store, bundle, content, devices, options)
        _bring(app, store, experiment, content, devices, retries)


for _command in (start_command, list_command, status_command, stop_command, decide_command):
    ab_command.add_command(_command)


def _begin(
    app: App, store: Store, path: Path, content: Bundle, devices: Sequence[Device], options: Mapping[str, Any]
) -> Experiment:
    """Return the running experiment or a new one, recorded before any device is changed.

    Raises:
        ExperimentError: EQ832 another experiment, EQ835 too few devices, EQ836 nothing to compare, EQ837 the
            devices serve different releases.
    """
    from edgeq.experiment import record
    from edgeq.version import VERSION

    with record.changing(app.workspace):
        known = _going(store, content, devices, options)
        if known is not None:
            app.ui.say(f"resuming experiment {known.config.experiment}")
            return known
        config = _config(store, content, devices, options)
        # The bundle first, so that every recorded experiment can be promoted.
        record.keep_bundle(app.workspace, config.experiment, path.read_bytes())
        store.put_release(content.release, content.manifest, content.reference.to_json())
        body = {"terms": config.to_dict(), "edgeq": VERSION, "bundle": str(path)}
        store.record_experiment(config.experiment, "started", record.actor(), body)
        return record.find(store, config.experiment)


def _going(
    store: Store, content: Bundle, devices: Sequence[Device], options: Mapping[str, Any]
) -> Experiment | None:
    from edgeq.experiment import ExperimentState, record

    names = {device.name for device in devices}
    for one in record.read_all(store):
        config = one.config
        if one.finished or config.model != content.model or not names & set(config.devices):
            continue
        recorded = config.to_dict()
        same = all(value is None or recorded[name] == value for name, value in options.items())
        same = same and config.release_b == content.release and set(config.devices) == names
        if same and one.state is ExperimentState.RUNNING:
            return one
        problem = "runs there with other terms than these"
        if one.state is not ExperimentState.RUNNING:
            problem = f"is {one.state.value}, but not gone from {', '.join(one.open)}"
        raise ExperimentError(
            content.model,
            f"experiment {config.experiment} {problem}",
            hint=f"`edgeq ab stop {config.experiment}` ends it; `edgeq ab list` shows its terms",
            code="EQ832",
        )
    return None


def _config(
    store: Store, content: Bundle, devices: Sequence[Device], options: Mapping[str, Any]
) -> ExperimentConfig:
    from edgeq.experiment import SplitBy, record
    from edgeq.experiment.config import ExperimentConfig, assign

    by = SplitBy(options["by"])
    if by is SplitBy.DEVICES and len(devices) < 2:
        raise ExperimentError(
            "--by devices", expected="at least 2 devices", got=str(len(devices)), code="EQ835",
            hint="choose more with --to, or divide the calls with --by calls",
        )  # fmt: skip
    base = _serving(content, devices)
    name = record.next_name(store, content.model, content.release)
    salt = options["salt"] or name
    names = [device.name for device in devices]
    return ExperimentConfig(
        experiment=name,
        model=content.model,
        release_a=base,
        release_b=content.release,
        by=by,
        share=options["share"],
        salt=salt,
        arms=assign(names, options["share"], salt) if by is SplitBy.DEVICES else dict.fromkeys(names, "ab"),
        alpha=options["alpha"],
        worse_by=options["worse_by"],
        slower_by=options["slower_by"],
    )


def _serving(content: Bundle, devices: Sequence[Device]) -> str:
    """Return the release that all reachable devices serve; the others must serve it when they are reached."""
    from edgeq.fleet.operations import status
    from edgeq.fleet.parallel import combined_error, on_each

    statuses = on_each(devices, status)
    if not statuses.done:
        error = combined_error(statuses.failed, device_count=len(devices), what="ab start")
        assert error is not None  # noqa: S101 - none was done, so some failed
        raise error
    serving = {name: answer.model(content.model).current for name, answer in statuses.done.items()}
    bare = [name for name, release in serving.items() if release is None]
    if bare:
        raise ExperimentError(
            ", ".join(bare), f"serves no release of {content.model}: there is nothing to compare with",
            hint=f"deploy one first, or leave {', '.join(bare)} out", code="EQ836",
        )  # fmt: skip
    current = {name: str(release) for name, release in serving.items()}
    same = [name for name, release in current.items() if release == content.release]
    if same:
        raise ExperimentError(
            ", ".join(same), f"serves {content.release[:12]} already: there is nothing to compare",
            hint=f"roll back first, or leave {', '.join(same)} out", code="EQ836",
        )  # fmt: skip
    blind = [name for name in current if statuses.done[name].model(content.model).proof == "ran"]
    if blind:
        raise ExperimentError(
            ", ".join(blind), f"runs {content.model} by benchmark_model, which gives no answers to compare",
            hint=f"leave {', '.join(blind)} out", code="EQ836",
        )  # fmt: skip
    releases = sorted(set(current.values()))
    if len(releases) > 1:
        each = "; ".join(f"{name} {release[:12]}" for name, release in current.items())
        raise ExperimentError(
            content.model, f"the devices serve different releases: {each}", code="EQ837",
            hint="deploy one release to all of them first, or choose devices that serve the same one",
        )  # fmt: skip
    return releases[0]


def _bring(
    app: App,
    store: Store,
    experiment: Experiment,
    content: Bundle,
    devices: Sequence[Device],
    retries: int,
) -> None:
    from edgeq.experiment import SplitBy
    from edgeq.fleet.parallel import on_each
    from edgeq.fleet.split import Division, divide

    config = experiment.config

    def bring(device: Device) -> dict[str, Any]:
        weights = config.weights(device.name)
        division = Division(
            experiment=config.experiment,
            model=config.model,
            base=config.release_a,
            arms={arm: (release, weights[arm]) for arm, release in config.releases.items()},
            salt=config.salt,
            each_call=config.by is SplitBy.CALLS,
        )
        return divide(
            device,
            content,
            division,
            workspace=app.workspace,
            retry_policy=retry_policy(app, retries),
        ).to_dict()

    results = on_each(devices, bring)
    _undo_if_ended(store, experiment, [device for device in devices if device.name in results.done])
    entries: list[dict[str, Any]] = []
    words = {
        "a": "and does not serve here",
        "b": "and serves here alone",
        "ab": f"and gets {format_percent(config.share)}",
    }
    for name, answer in results.done.items():
        already = "" if answer["staged"] or answer["divided"] else ", as before"
        app.ui.line(
            f"{name}: {config.model} {config.release_b[:12]} is staged, {words[config.arms[name]]}{already}"
        )
        entries.append({"device": name, "ok": True, "arm": config.arms[name], **answer})
    for name, error in results.failed.items():
        app.ui.line(failure_line(name, error))
        entries.append({"device": name, "ok": False, "arm": config.arms[name], "error": error.to_dict()})
    app.ui.line(f"experiment {config.experiment}")
    store.record_run("ab", config.model, {"experiment": config.experiment, "devices": entries})
    body = {**experiment.to_dict(), "devices": entries}
    finish(app, "edgeq.ab.start/1", body, results.failed, device_count=len(devices), what="ab start")
    app.ui.next(f"edgeq collect {' '.join(config.devices)}; edgeq ab status {config.experiment}")


def _undo_if_ended(store: Store, experiment: Experiment, devices: Sequence[Device]) -> None:
    """Undo the start on devices if another process ended the experiment meanwhile.

    Raises:
        ExperimentError: EQ834, it was ended meanwhile.
    """
    from edgeq.experiment import ExperimentState, record
    from edgeq.fleet.parallel import on_each
    from edgeq.fleet.split import unite

    config = experiment.config
    now = record.find(store, config.experiment)
    if now.state is ExperimentState.RUNNING:
        return
    undone = on_each(
        devices,
        lambda device: unite(
            device, experiment=config.experiment, model=config.model, release=config.release_b
        ),
    )
    left = f", and is still there on {', '.join(undone.failed)}" if undone.failed else ""
    raise ExperimentError(
        config.experiment, f"was {now.state.value} while it was started here{left}", code="EQ834",
        hint=f"`edgeq ab status {config.experiment}` shows who ended it, and why",
    )  # fmt: skip
