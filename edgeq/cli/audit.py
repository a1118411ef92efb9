"""`edgeq audit`: list who changed what on which device; verify that the list was not altered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import AuditBroken

if TYPE_CHECKING:
    from edgeq.store import AuditRecord


@click.group("audit", cls=CommandGroup)
def audit_command() -> None:
    """List who changed what on which device; verify that the list was not altered."""


@command("list", examples=["edgeq audit list", "edgeq audit list pi --limit 20", "edgeq audit list --json"])
@click.argument("subject", required=False)
@click.option("--action", help="Only this action, such as activate or exec.", metavar="ACTION")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="At most so many entries, the newest; most changes have two.",
)
def _list(app: App, subject: str | None, action: str | None, limit: int) -> None:
    """List the newest changes, of SUBJECT (a device) if it is given.

    A change has an entry before it and one with its result; the table shows them as one row.
    """
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        records = store.audit(limit, subject=subject, action=action)
    rows = _rows(records)
    if rows:
        app.ui.table(["entry", "when (UTC)", "who", "action", "subject", "result", "command"], rows)
    else:
        app.ui.say("the audit log has no such entry")
    app.ui.emit("edgeq.audit.list/1", {"entries": [_entry(record) for record in records]})
    app.ui.next("audit", "verify")


@command(
    "verify",
    examples=["edgeq audit verify", "edgeq audit verify --head 5f2c...", "edgeq audit verify --json"],
)
@click.option(
    "--head",
    metavar="SHA256",
    help="The hash of an entry that you keep elsewhere, from an earlier `edgeq audit verify`.",
)
def _verify(app: App, head: str | None) -> None:
    """Verify the chain of hashes of the audit log, and print the hash of its last entry.

    Keep that hash elsewhere: with --head, a later run shows that nothing before it was removed or changed,
    even if someone can write to the workspace.
    """
    from edgeq.cli.device_results import emit
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        result = store.check_audit(known=head)
    for problem in result.problems:
        app.ui.line(problem)
    error = None
    if result.problems:
        error = AuditBroken(
            str(app.workspace / ".edgeq" / "store.db"),
            f"the audit log was altered or is damaged: {len(result.problems)} of its places do not fit",
        )
    else:
        older = f", and {result.unchained} older ones as a whole" if result.unchained else ""
        app.ui.line(f"{result.entries} entries fit{older}")
    if result.head is not None:
        app.ui.line(f"head: entry {result.head.id}, {result.head.sha256}")
    body = {
        "entries": result.entries,
        "unchained": result.unchained,
        "head": None if result.head is None else {"id": result.head.id, "sha256": result.head.sha256},
        "problems": list(result.problems),
    }
    emit(app, "edgeq.audit.verify/1", body, error)


for _command in (_list, _verify):
    audit_command.add_command(_command)


def _rows(records: Sequence[AuditRecord]) -> list[list[str]]:
    """Return a row for each change, newest first: its result, or that it has none."""
    ended = {record.body.get("of") for record in records}
    return [
        [
            str(record.id),
            datetime.fromtimestamp(record.at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            record.actor + (f"@{record.host}" if record.host else ""),
            record.action + _about(record),
            record.subject,
            "no result" if record.result == "started" else record.result or "-",
            record.command or "-",
        ]
        for record in records
        if not (record.result == "started" and record.id in ended)
    ]


def _about(record: AuditRecord) -> str:
    model, release = record.body.get("model"), record.body.get("release")
    words = [str(model)] if model else []
    words += [str(release)[:12]] if release else []
    return " " + " ".join(words) if words else ""


def _entry(record: AuditRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "at_ns": record.at_ns,
        "actor": record.actor,
        "host": record.host,
        "action": record.action,
        "subject": record.subject,
        "command": record.command,
        "result": record.result,
        "body": record.body,
        "previous": record.previous,
        "sha256": record.sha256,
    }
