"""`edgeq devices import`: enrol the hosts of a CSV file, an Ansible inventory or an ssh configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_results import emit, failure_line
from edgeq.cli.enrol_options import (
    home_option,
    identity_option,
    kind_option,
    label_option,
    parse_labels,
    publisher_option,
    python_option,
    transport_option,
)
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError, SomeDevicesFailed
from edgeq.values import DeviceKind, TransportKind

if TYPE_CHECKING:
    from edgeq.fleet.hosts.enrol_hosts import Imported, ImportPlan, Planned

_FORMATS = ("csv", "ansible-ini", "ansible-yaml", "ssh-config")


@command(
    "import",
    examples=[
        "edgeq devices import hosts.csv --dry-run",
        "edgeq devices import inventory.ini --user pi --label site=lab",
        "edgeq devices import ~/.ssh/config 'pi-*'",
        "edgeq devices import 'pi-*'",
    ],
)
@click.argument("source")
@click.argument("patterns", nargs=-1)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(_FORMATS),
    help="Format of SOURCE.  [default: by its name and content]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be enrolled; contact no host.")
@click.option("--user", help="User of hosts that name none.  [default: your user name]", metavar="USER")
@kind_option(help="Kind of hosts that name none.")
@label_option
@identity_option(help="Private key of hosts that name none.")
@click.option("--jump", help="Jump host of hosts that name none: [USER@]HOST[:PORT].", metavar="HOST")
@python_option(help="Python of hosts that name none.")
@home_option(help="Agent's folder on hosts that name none.")
@publisher_option(
    help="Key that the devices trust: a name or a .pub file; repeatable.  [default: this workspace's key]"
)
@transport_option(help="As in `edgeq devices add`.")
@retries_option()
def import_command(
    app: App,
    source: str,
    patterns: tuple[str, ...],
    format_name: str | None,
    dry_run: bool,
    user: str | None,
    kind: str,
    labels: tuple[str, ...],
    identity: Path | None,
    jump: str | None,
    python: str,
    home: str,
    publishers: tuple[str, ...],
    transport: str,
    retries: int,
) -> None:
    """Enrol the hosts of SOURCE, or those whose names match PATTERNS; each as `edgeq devices add` does.

    SOURCE is a CSV file (its first line names the columns), an Ansible inventory (INI or YAML; a group GROUP
    becomes the label GROUP=yes) or an ssh configuration. A SOURCE that is not a file is a pattern of hosts in
    ~/.ssh/config.

    A host that fails is a line, and the others go on. Import the same file again after correcting it: what is
    enrolled stays as it is.
    """
    from edgeq.bundle.keys import find_public
    from edgeq.fleet.hosts.enrol_hosts import Defaults, Imported, enrol_hosts, plan_import
    from edgeq.fleet.hosts.read import HostFormat, read_hosts
    from edgeq.store import Store

    defaults = Defaults(
        user=user,
        kind=DeviceKind(kind),
        labels=parse_labels(labels),
        identity=identity,
        python=python,
        home=home,
        jump=jump,
        transport=TransportKind(transport),
    )
    signers = [find_public(app.workspace, key) for key in publishers] or None
    hosts, detected = read_hosts(
        source, patterns, format=None if format_name is None else HostFormat(format_name)
    )
    plan = plan_import(hosts, app.inventory().devices, defaults)
    for note in (*hosts.notes, *(f"{e.where}: {e.name}: {note}" for e in hosts.entries for note in e.notes)):
        app.ui.note(note)
    imported = Imported(done={}, failed={})
    if plan.new and not dry_run:
        with (
            Store.open(app.workspace) as store,
            app.ui.progress("enrolling", len(plan.new)) as advance,
        ):
            imported = enrol_hosts(
                app.workspace,
                plan,
                defaults,
                publishers=signers,
                retry_policy=retry_policy(app, retries),
                store=store,
                on_done=lambda _name: advance(1),
            )
    _show(app, plan, imported, defaults.labels, dry_run=dry_run)
    body = {
        "source": str(hosts.path),
        "format": detected.value,
        "dry_run": dry_run,
        "devices": _entries(plan, imported, defaults.labels),
    }
    emit(app, "edgeq.devices.import/1", body, _error(plan, imported))
    if dry_run and plan.new:
        app.ui.again(without="dry_run")
    elif not dry_run:
        app.ui.next("deploy", "BUNDLE", "--to", "all")


def _show(app: App, plan: ImportPlan, imported: Imported, more: Mapping[str, str], *, dry_run: bool) -> None:
    if dry_run and plan.new:
        app.ui.table(
            ["name", "address", "kind", "labels", "would"],
            [
                [
                    one.entry.name,
                    _address(one),
                    one.entry.kind.value if one.entry.kind else "-",
                    " ".join(f"{key}={value}" for key, value in {**more, **one.entry.labels}.items()),
                    "enrol",
                ]
                for one in plan.new
            ],
        )
    for one in plan.planned:
        if one.because:
            app.ui.line(f"{one.entry.where}: {one.entry.name} {one.because}; not enrolled again")
    for name, enrolment in imported.done.items():
        app.ui.line(f"{name}  {enrolment.fingerprint}")
        if not enrolment.pinned:
            app.ui.warn(
                f"{name} already trusts other keys; `edgeq keys trust --on {name}` adds this workspace's key"
            )
    for name, error in imported.failed.items():
        app.ui.line(failure_line(name, error))
    for bad in plan.bad:
        app.ui.line(f"{_subject(bad.where, bad.error)}: not imported, {_problem(bad.where, bad.error)}")


def _subject(where: str, error: EdgeqError) -> str:
    return where if error.subject.startswith(where) else f"{where}: {error.subject}"


def _problem(where: str, error: EdgeqError) -> str:
    return error.message.removeprefix(where).removeprefix(": ")


def _address(one: Planned) -> str:
    entry = one.entry
    via = f" via {entry.jump}" if entry.jump else ""
    return f"{one.address.user}@{one.address.host}:{one.address.port}{via}"


def _entries(plan: ImportPlan, imported: Imported, more: Mapping[str, str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for one in plan.planned:
        entry, name = one.entry, one.entry.name
        error = imported.failed.get(name) if one.because == "" else None
        enrolment = imported.done.get(name) if one.because == "" else None
        body: dict[str, Any] = {
            "device": name,
            "where": entry.where,
            "ok": error is None,
            "action": one.action.value if enrolment is None else "enrolled",
            "host": one.address.host,
            "port": one.address.port,
            "user": one.address.user,
            "kind": entry.kind.value if entry.kind else None,
            "labels": {**more, **entry.labels},
            "identity": None if entry.identity is None else str(entry.identity),
            "jump": entry.jump,
            "fingerprint": entry.fingerprint if enrolment is None else enrolment.fingerprint,
            "because": one.because or None,
            "notes": list(entry.notes),
        }
        entries.append(body if error is None else {**body, "error": error.to_dict()})
    entries += [
        {"device": bad.name or None, "where": bad.where, "ok": False, "error": bad.error.to_dict()}
        for bad in plan.bad
    ]
    return entries


def _error(plan: ImportPlan, imported: Imported) -> EdgeqError | None:
    """Return the error of the command: that of the only host, or one that names all that failed."""
    failed: Sequence[tuple[str, EdgeqError]] = [
        *imported.failed.items(),
        *((bad.where, bad.error) for bad in plan.bad),
    ]
    if not failed:
        return None
    count = len(plan.planned) + len(plan.bad)
    if count == 1:
        return failed[0][1]
    causes = "; ".join(f"{name} ({error.reported_code})" for name, error in failed[:20])
    more = f"; and {len(failed) - 20} others" if len(failed) > 20 else ""
    return SomeDevicesFailed(
        "devices import",
        f"{len(failed)} of {count} hosts were not imported: {causes}{more}",
        hint="correct them, then import the same file again: devices that are enrolled stay as they are",
    )
