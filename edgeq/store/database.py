"""`Store`: records written in transactions and read back as frozen values."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from edgeq.errors import StoreError
from edgeq.store.audit_chain import AuditChain, AuditCheck, check
from edgeq.store.engine import open_engine, reading, store_errors
from edgeq.store.records import (
    AuditRecord,
    BenchRecord,
    ExperimentRecord,
    Ingested,
    QuarantineRecord,
    Readmitted,
    ReceivedWindow,
    RefusedRecord,
    ReleaseRecord,
    RunRecord,
    WindowRecord,
    from_text,
    to_text,
)
from edgeq.store.schema import (
    audit,
    benches,
    experiment_windows,
    experiments,
    quarantine,
    releases,
    runs,
    windows,
)
from edgeq_agent.telemetry.window import Window, parse

# A device whose records fill this needs someone to look: nothing more of it is accepted, nor acknowledged.
MOST_QUARANTINED = 10_000
_LONGEST_QUARANTINED = 256 * 1024
_SHOWN_OF_LONG = 16 * 1024


class Store:
    """The records of one workspace. Open it with `Store.open`; close it with `with` or `close`.

    Every method raises StoreError (EQ610) if the database fails. Timestamps are nanoseconds since 1970 (UTC).
    """

    def __init__(self, engine: sa.Engine, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._engine = engine
        self._now_ns = clock
        self._chain = AuditChain(path)
        # Windows that reads left out, by id, until `set_aside_invalid`.
        self._invalid: dict[int, tuple[Mapping[str, Any], RefusedRecord]] = {}

    @classmethod
    def open(cls, workspace: Path) -> Store:
        """Open `.edgeq/store.db` of a workspace; create it if it is missing, and migrate it if it is older.

        Raises:
            StoreError: EQ610; the file is not a database, or belongs to another program or to a newer edgeq.
        """
        path = workspace / ".edgeq" / "store.db"
        return cls(open_engine(path), path)

    def close(self) -> None:
        """Close the database connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record_run(self, kind: str, subject: str, body: Mapping[str, Any]) -> int:
        """Record a finished step.

        Args:
            kind: the step: `convert`, `evaluate`, `select`, `bundle`, `deploy`, ...
            subject: what the step worked on: a file, a model or a device.
            body: the step's result as a JSON object.

        Returns:
            The id of the new record.
        """
        return self._insert(runs, kind=kind, subject=subject, created_ns=self._now_ns(), body=to_text(body))

    def runs(self, kind: str | None = None, limit: int = 50) -> list[RunRecord]:
        """Return up to `limit` runs, newest first; of one `kind` if it is given."""
        query = sa.select(runs).order_by(runs.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(runs.c.kind == kind)
        return [RunRecord(**self._with_body(runs, row)) for row in self._rows(query)]

    def put_release(
        self, release: str, manifest: Mapping[str, Any], reference: Mapping[str, Any] | None
    ) -> None:
        """Record the manifest of a release. The first manifest stays; a missing reference is added later.

        Args:
            release: the release id, which is the digest of the manifest.
            manifest: the bundle's signed manifest.
            reference: the bundle's drift reference, if it has one.
        """
        statement = insert(releases).values(
            release=release,
            created_ns=self._now_ns(),
            manifest=to_text(manifest),
            reference=None if reference is None else to_text(reference),
        )
        kept = sa.func.coalesce(releases.c.reference, statement.excluded.reference)
        with store_errors(self.path), self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["release"], set_={"reference": kept})
            )

    def release(self, release: str) -> ReleaseRecord | None:
        """Return the record of a release, or None if the store has none."""
        rows = self._rows(sa.select(releases).where(releases.c.release == release))
        return self._release(rows[0]) if rows else None

    def releases(self) -> list[ReleaseRecord]:
        """Return all releases, oldest first."""
        query = sa.select(releases).order_by(releases.c.created_ns, releases.c.release)
        return [self._release(row) for row in self._rows(query)]

    def ingest(
        self,
        device_name: str,
        received: Sequence[ReceivedWindow],
        *,
        device_id: str | None = None,
        refused: Sequence[RefusedRecord] = (),
    ) -> Ingested:
        """Add windows exactly once and quarantine the refused records, in one transaction.

        A window is identified by device id, boot and sequence number. If the store already has that window
        with other content, the stored one stays and the new one goes to the quarantine.

        Args:
            device_name: the device's name in the inventory.
            received: valid windows.
            device_id: the id that the device gave itself, which survives a rename; default: the name.
            refused: records that failed the validation.

        Raises:
            StoreError: EQ610; also when the device's quarantine is full: nothing is stored then.
        """
        new = duplicates = quarantined = 0
        identity = device_id or device_name
        with store_errors(self.path), self._engine.begin() as connection:
            for each in received:
                window, text = each.window, to_text(each.body)
                if _add_window(connection, device_name, identity, window, text):
                    new += 1
                elif _stored_text(connection, identity, window) == text:
                    duplicates += 1
                else:
                    reason = f"the store has another window with boot {window.boot} and seq {window.seq}"
                    quarantined += self._quarantine_record(
                        connection, device_name, RefusedRecord(reason=reason, body=each.body)
                    )
            if refused:
                _check_room(connection, device_name, len(refused))
            for record in refused:
                quarantined += self._quarantine_record(connection, device_name, record)
        return Ingested(new=new, duplicates=duplicates, quarantined=quarantined)

    def windows(
        self,
        model: str | None = None,
        device: str | None = None,
        release: str | None = None,
        experiment: str | None = None,
        newest: int | None = None,
    ) -> list[WindowRecord]:
        """Return the windows that match every given filter, in the order of arrival.

        A device sends its oldest window first, so this is also the order in which it recorded them. The
        device's timestamps do not give that order: its clock may jump.

        A stored window that is damaged, or that an earlier version accepted and this one refuses, is left
        out: it must not end the reading of all others. `set_aside_invalid` then moves it to the quarantine.

        Args:
            newest: only so many, the last ones.
        """
        columns = (windows.c.id, windows.c.device, windows.c.device_id, windows.c.body)
        query = sa.select(*columns).order_by(windows.c.id.desc()).limit(newest)
        for column, value in (
            (windows.c.model, model),
            (windows.c.device, device),
            (windows.c.release, release),
        ):
            if value is not None:
                query = query.where(column == value)
        if experiment is not None:
            of_experiment = sa.select(experiment_windows.c.window).where(
                experiment_windows.c.experiment == experiment
            )
            query = query.where(windows.c.id.in_(of_experiment))
        records = []
        for row in reversed(self._rows(query)):
            record = _window_record(row)
            if isinstance(record, WindowRecord):
                records.append(record)
            else:
                self._invalid[int(row["id"])] = (row, record)
        return records

    def set_aside_invalid(self) -> int:
        """Move the invalid windows that `windows` met to the quarantine, and return how many there were."""
        invalid, self._invalid = self._invalid, {}
        if not invalid:
            return 0
        with store_errors(self.path), self._engine.begin() as connection:
            for number, (row, record) in invalid.items():
                self._quarantine_record(connection, str(row["device"]), record)
                connection.execute(experiment_windows.delete().where(experiment_windows.c.window == number))
                connection.execute(windows.delete().where(windows.c.id == number))
        return len(invalid)

    def quarantine(self, device: str | None = None) -> list[QuarantineRecord]:
        """Return the quarantined records, oldest first; of one device if it is given."""
        columns = [column for column in quarantine.c if column.name != "sha256"]
        query = sa.select(*columns).order_by(quarantine.c.id)
        if device is not None:
            query = query.where(quarantine.c.device == device)
        rows = [self._checked(quarantine, row) for row in self._rows(query)]
        return [QuarantineRecord(**{**row, "body": _text_or_body(row["body"])}) for row in rows]

    def quarantine_counts(self) -> dict[str, int]:
        """Return how many records of each device are in the quarantine, by the device's name."""
        query = sa.select(quarantine.c.device, sa.func.count().label("records")).group_by(quarantine.c.device)
        return {str(row["device"]): int(row["records"]) for row in self._rows(query)}

    def drop_quarantined(self, records: Sequence[QuarantineRecord], *, actor: str) -> int:
        """Delete records from the quarantine, note it in the audit log, and return how many were there."""
        dropped = 0
        with self._chain.writing(), store_errors(self.path), self._engine.begin() as connection:
            for record in records:
                gone = connection.execute(quarantine.delete().where(quarantine.c.id == record.id)).rowcount
                dropped += gone
                if gone:
                    entry = {
                        "at_ns": self._now_ns(),
                        "actor": actor,
                        "action": "quarantine.drop",
                        "subject": record.device,
                        "body": to_text({"id": record.id, "reason": record.reason}),
                    }
                    self._chain.append(connection, entry)
        return dropped

    def readmit(self, record: QuarantineRecord, received: ReceivedWindow) -> Readmitted:
        """Move a quarantined record that is valid now to the windows, in one transaction."""
        window, text = received.window, to_text(received.body)
        identity = window.device_id
        with store_errors(self.path), self._engine.begin() as connection:
            stored = (
                _add_window(connection, record.device, identity, window, text)
                or _stored_text(connection, identity, window) == text
            )
            if stored:
                connection.execute(quarantine.delete().where(quarantine.c.id == record.id))
        return Readmitted(record=record, stored=stored)

    def record_bench(self, device_name: str, body: Mapping[str, Any]) -> int:
        """Record a benchmark result (`edgeq.bench/1`) and return the id of the record."""
        return self._insert(
            benches,
            device=device_name,
            model=str(body["model"]),
            release=str(body["release"]),
            created_ns=self._now_ns(),
            body=to_text(body),
        )

    def benches(self, model: str | None = None, device: str | None = None) -> list[BenchRecord]:
        """Return the benchmark results that match every given filter, oldest first."""
        query = sa.select(benches).order_by(benches.c.id)
        if model is not None:
            query = query.where(benches.c.model == model)
        if device is not None:
            query = query.where(benches.c.device == device)
        return [BenchRecord(**self._with_body(benches, row)) for row in self._rows(query)]

    def record_experiment(self, experiment: str, event: str, actor: str, body: Mapping[str, Any]) -> int:
        """Record an event of an experiment and return the id of the record. It is durable on return."""
        text = to_text(body)
        return self._insert(
            experiments, experiment=experiment, event=event, at_ns=self._now_ns(), actor=actor, body=text
        )

    def experiments(self, experiment: str | None = None) -> list[ExperimentRecord]:
        """Return the events of one experiment, or of all experiments, oldest first.

        Raises:
            StoreError: EQ610; a record is damaged.
        """
        query = sa.select(experiments).order_by(experiments.c.id)
        if experiment is not None:
            query = query.where(experiments.c.experiment == experiment)
        return [ExperimentRecord(**self._with_body(experiments, row)) for row in self._rows(query)]

    def record_audit(
        self,
        actor: str,
        action: str,
        subject: str,
        body: Mapping[str, Any],
        *,
        host: str | None = None,
        command: str | None = None,
        result: str | None = None,
    ) -> int:
        """Record that `actor` did `action` to `subject`, at the end of the chain; return the record's id."""
        entry = {
            "at_ns": self._now_ns(),
            "actor": actor,
            "host": host,
            "action": action,
            "subject": subject,
            "command": command,
            "result": result,
            "body": to_text(body),
        }
        with self._chain.writing(), store_errors(self.path), self._engine.begin() as connection:
            return self._chain.append(connection, entry)

    def audit(
        self, limit: int = 100, *, subject: str | None = None, action: str | None = None
    ) -> list[AuditRecord]:
        """Return up to `limit` audit records that match every given filter, newest first."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        if action is not None:
            query = query.where(audit.c.action == action)
        return [AuditRecord(**self._with_body(audit, row)) for row in self._rows(query)]

    def check_audit(self, *, known: str | None = None) -> AuditCheck:
        """Verify the chain of the audit log; `known` is the hash of an entry that must be in it."""
        # The head first: entries that are written meanwhile come after it.
        head = self._chain.read_head()
        return check(self._rows(sa.select(audit).order_by(audit.c.id)), head, known=known)

    def _insert(self, table: sa.Table, **values: Any) -> int:
        with store_errors(self.path), self._engine.begin() as connection:
            key = connection.execute(table.insert().values(**values)).inserted_primary_key
        return int(key[0]) if key is not None else 0

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with store_errors(self.path), reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _with_body(self, table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._checked(table, row), "body": self._parsed(table, row, "body")}

    def _release(self, row: Mapping[str, Any]) -> ReleaseRecord:
        self._checked(releases, row)
        reference = None if row["reference"] is None else self._parsed(releases, row, "reference")
        return ReleaseRecord(
            **{**row, "manifest": self._parsed(releases, row, "manifest"), "reference": reference}
        )

    def _parsed(self, table: sa.Table, row: Mapping[str, Any], column: str) -> Any:
        """Return a stored JSON object.

        Raises:
            StoreError: EQ610; it is damaged. The hint has the statement that removes its row.
        """
        try:
            value = from_text(row[column])
            # The readers of experiments name the experiment whose record is of another form (EQ838).
            if not isinstance(value, dict) and table is not experiments:
                raise TypeError("it is not a JSON object")
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(table, row, column, error) from error
        return value

    def _checked(self, table: sa.Table, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row whose values have the types of their columns; SQLite stores any type in any column.

        Raises:
            StoreError: EQ610; as `_parsed`.
        """
        for name, value in row.items():
            column = table.c[name]
            kind = int if isinstance(column.type, sa.Integer) else str
            if not isinstance(value, kind) and not (value is None and column.nullable):
                raise self._damaged(table, row, name, f"it is of type {type(value).__name__}")
        return row

    def _damaged(self, table: sa.Table, row: Mapping[str, Any], column: str, problem: object) -> StoreError:
        (key,) = table.primary_key.columns
        hint = "restore a copy of the file"
        if isinstance(row[key.name], int | str):
            statement = table.delete().where(key == row[key.name])
            remove = statement.compile(self._engine, compile_kwargs={"literal_binds": True})
            hint += f', or give the record up: `sqlite3 {self.path} "{remove}"`'
        text = f"a damaged record: {column} of {table.name} {row[key.name]}: {problem}"
        return StoreError(str(self.path), text, hint=hint)

    def _quarantine_record(self, connection: sa.Connection, device: str, record: RefusedRecord) -> int:
        text = to_text(record.body)
        if len(text) > _LONGEST_QUARANTINED:
            text = to_text({"shortened_from_bytes": len(text), "begins": text[:_SHOWN_OF_LONG]})
        statement = insert(quarantine).values(
            device=device,
            reason=record.reason,
            received_ns=self._now_ns(),
            sha256=hashlib.sha256(text.encode("ascii")).hexdigest(),
            body=text,
        )
        return connection.execute(statement.on_conflict_do_nothing()).rowcount


def _text_or_body(text: str) -> Any:
    # A quarantined record may be anything; what is not JSON is shown as it is.
    try:
        return from_text(text)
    except (ValueError, RecursionError):
        return text


def _window_record(row: Mapping[str, Any]) -> WindowRecord | RefusedRecord:
    text = str(row["body"])
    body: Any = text
    try:
        body = from_text(text)
        window = parse(body)
        if not isinstance(row["device"], str) or not isinstance(row["device_id"], str):
            raise ValueError("its device is not a text")
    except (ValueError, RecursionError) as error:
        return RefusedRecord(reason=f"stored window {row['id']} is not valid: {error}", body=body)
    return WindowRecord(
        id=row["id"],
        device=row["device"],
        device_id=row["device_id"],
        window=window,
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def _check_room(connection: sa.Connection, device: str, more: int) -> None:
    query = sa.select(sa.func.count()).where(quarantine.c.device == device)
    held = int(connection.execute(query).scalar_one())
    if held + more > MOST_QUARANTINED:
        raise StoreError(
            device,
            f"its quarantine is full ({held} records); nothing more is collected, and nothing is lost",
            hint=f"see `edgeq quarantine list {device}`, then `edgeq quarantine drop --device {device}`",
        )


def _add_window(connection: sa.Connection, device: str, device_id: str, window: Window, text: str) -> bool:
    statement = insert(windows).values(
        device=device,
        device_id=device_id,
        boot=window.boot,
        seq=window.seq,
        model=window.model,
        release=window.release,
        started_ns=window.started_ns,
        ended_ns=window.ended_ns,
        body=text,
    )
    # Only a known (device, boot, seq) is skipped silently. Any other conflict is an error.
    unique = ["device_id", "boot", "seq"]
    result = connection.execute(statement.on_conflict_do_nothing(index_elements=unique))
    if result.rowcount != 1:
        return False
    if window.experiment and result.inserted_primary_key is not None:
        window_id = result.inserted_primary_key[0]
        connection.execute(experiment_windows.insert().values(window=window_id, experiment=window.experiment))
    return True


def _stored_text(connection: sa.Connection, device_id: str, window: Window) -> str:
    query = sa.select(windows.c.body).where(
        windows.c.device_id == device_id, windows.c.boot == window.boot, windows.c.seq == window.seq
    )
    return str(connection.execute(query).scalar_one())
