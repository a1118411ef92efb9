"""`edgeq deploy --stages`: start a rollout, or retry the failed devices of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.cli.device_options import retry_policy
from edgeq.cli.rollout.options import StageOptions
from edgeq.cli.rollout.output import SCHEMA, finish, progress
from edgeq.cli.ui import App
from edgeq.errors import UsageError
from edgeq.units import parse_duration

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.fleet.rollout.operations import RolloutOptions
    from edgeq.fleet.rollout.spec import RolloutSpec
    from edgeq.fleet.rollout.state import Rollout
    from edgeq.values import Device


def deploy_in_stages(
    app: App, path: Path, selectors: tuple[str, ...], options: StageOptions, *, dry_run: bool, yes: bool
) -> None:
    """Start a rollout and drive it until it is done or needs a decision of the operator."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.fleet.rollout import operations

    bundle = read_bundle(path)
    devices = app.inventory().select(selectors)
    if options.retry_failed:
        _retry(app, bundle, devices, options, dry_run=dry_run)
        return
    if options.stages is None:
        raise UsageError(
            "edgeq deploy",
            "--abort, --on-abort and --at-once require --stages",
            hint="add --stages, for example --stages 1,10%,50%,100%",
        )
    rollout_options = _rollout_options(selectors, options)
    spec = operations.preview(app.workspace, bundle, devices, rollout_options)
    if dry_run:
        _show_spec(app, spec)
        return
    question = f"Change up to {len(devices)} devices in {len(spec.stages)} stages?"
    if not app.ui.confirm(question, yes=yes):
        app.ui.say("nothing was changed")
        return
    with progress(app) as printer:
        rollout = operations.start(
            app.workspace,
            path,
            bundle,
            devices,
            rollout_options,
            retry_policy=retry_policy(app, options.retries),
            observer=printer,
        )
    finish(app, rollout)


def _rollout_options(selectors: tuple[str, ...], options: StageOptions) -> RolloutOptions:
    from edgeq.fleet.rollout.abort import DEFAULT
    from edgeq.fleet.rollout.operations import RolloutOptions
    from edgeq.fleet.rollout.spec import OnAbort

    return RolloutOptions(
        stages=options.stages or "",
        abort=DEFAULT if options.abort is None else options.abort,
        on_abort=OnAbort(options.on_abort or "stop"),
        soak_s=_soak_s(options.soak) or 0.0,
        soak=(options.soak or "").strip(),
        at_once=options.at_once or 8,
        selectors=selectors,
    )


def _soak_s(soak: str | None) -> float | None:
    return None if soak is None else parse_duration(soak, subject="--soak") / 1e9


def _retry(
    app: App, bundle: Bundle, devices: Sequence[Device], options: StageOptions, *, dry_run: bool
) -> None:
    from edgeq.fleet.rollout import operations

    rollout = operations.latest(app.workspace, bundle)
    if rollout is None:
        raise UsageError(
            "--retry-failed",
            f"there is no rollout of {bundle.model} {bundle.release[:12]} to continue",
            hint="omit --retry-failed to start one; `edgeq rollout list` shows all rollouts",
        )
    _check_same(rollout, {device.name: device for device in devices}, options)
    if dry_run:
        _show_spec(app, rollout.spec)
        return
    with progress(app) as printer:
        rollout = operations.resume(
            app.workspace,
            rollout.spec.rollout,
            retry_failed=True,
            retry_policy=retry_policy(app, options.retries),
            observer=printer,
        )
    finish(app, rollout)


def _check_same(rollout: Rollout, devices: Mapping[str, Device], options: StageOptions) -> None:
    """Refuse options that differ from those that the rollout began with, which it keeps."""
    spec = rollout.spec
    differs = {
        "--to": set(devices) != set(spec.devices),
        "--stages": options.stages is not None
        and [token.strip() for token in options.stages.split(",")] != [stage.text for stage in spec.stages],
        "--soak": _soak_s(options.soak) not in (None, spec.soak_s),
        "--abort": options.abort not in (None, spec.rules.text),
        "--on-abort": options.on_abort not in (None, spec.on_abort.value),
        "--at-once": options.at_once not in (None, spec.at_once),
    }
    for option, other in differs.items():
        if other:
            raise UsageError(
                option,
                f"differs from rollout {spec.rollout}, which --retry-failed continues",
                hint=f"omit {option}; `edgeq rollout show {spec.rollout}` shows the options of that rollout",
            )


def _show_spec(app: App, spec: RolloutSpec) -> None:
    for number, stage in enumerate(spec.stages, start=1):
        names = ", ".join(stage.devices[:8]) + (", ..." if len(stage.devices) > 8 else "")
        app.ui.line(f"stage {number}/{len(spec.stages)} {stage.text}: {len(stage.devices)} ({names})")
    app.ui.line(f"soak {spec.soak_text}, abort on {spec.rules.text}, then {spec.on_abort.value}")
    app.ui.emit(SCHEMA, {**spec.to_dict(), "dry_run": True})
