"""The store: every record that edgeq keeps, written in transactions and read as frozen values."""

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
from edgeq.store.engine import open_engine, reading, said
from edgeq.store.records import (
    AuditRecord,
    BenchRecord,
    ExperimentRecord,
    Ingested,
    QuarantineRecord,
    Refused,
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


class Store:
    """The records of one workspace; made by `Store.open`, closed by `with` or `close`.

    Every method raises StoreError when the database cannot be used.
    """

    def __init__(self, engine: sa.Engine, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._engine = engine
        self._now_ns = clock

    @classmethod
    def open(cls, workspace: Path) -> Store:
        """Open the workspace's store, making or migrating it where needed.

        Raises:
            StoreError: no database, another program's, or a newer edgeq's.
        """
        path = workspace / ".edgeq" / "store.db"
        return cls(open_engine(path), path)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record_run(self, kind: str, subject: str, body: Mapping[str, Any]) -> int:
        """Record a finished step and return its number."""
        return self._insert(runs, kind=kind, subject=subject, created_ns=self._now_ns(), body=to_text(body))

    def runs(self, kind: str | None = None, limit: int = 50) -> list[RunRecord]:
        """Return the newest runs first."""
        query = sa.select(runs).order_by(runs.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(runs.c.kind == kind)
        return [RunRecord(**{**row, "body": from_text(row["body"])}) for row in self._rows(query)]

    def put_release(
        self, release: str, manifest: Mapping[str, Any], reference: Mapping[str, Any] | None
    ) -> None:
        """Remember what a release id stands for; again, it only adds a reference that was missing."""
        statement = insert(releases).values(
            release=release,
            created_ns=self._now_ns(),
            manifest=to_text(manifest),
            reference=None if reference is None else to_text(reference),
        )
        kept = sa.func.coalesce(releases.c.reference, statement.excluded.reference)
        with said(self.path), self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["release"], set_={"reference": kept})
            )

    def release(self, release: str) -> ReleaseRecord | None:
        """Return what a release id stands for, or None when it is not known."""
        rows = self._rows(sa.select(releases).where(releases.c.release == release))
        return _release(rows[0]) if rows else None

    def releases(self) -> list[ReleaseRecord]:
        """Return all releases, oldest first."""
        query = sa.select(releases).order_by(releases.c.created_ns, releases.c.release)
        return [_release(row) for row in self._rows(query)]

    def ingest(
        self,
        device_name: str,
        windows_in: Sequence[Mapping[str, Any]],
        *,
        device_id: str | None = None,
        refused: Sequence[Refused] = (),
    ) -> Ingested:
        """Add windows exactly once, and put refused records aside, in one transaction.

        Args:
            device_name: the device's name in the inventory.
            windows_in: valid windows (`edgeq.window/1`).
            device_id: the device's own id, which survives a new name; the name where it has none.
            refused: records that are no valid windows.

        A window whose number is known but whose content differs is put aside too: the first one stays.
        """
        new = duplicates = aside = 0
        known_as = device_id or device_name
        with said(self.path), self._engine.begin() as connection:
            for body in windows_in:
                text = to_text(body)
                if _add_window(connection, device_name, known_as, body, text):
                    new += 1
                elif _stored_text(connection, known_as, body) == text:
                    duplicates += 1
                else:
                    reason = f"another window is known as boot {body['boot']} seq {body['seq']}"
                    aside += self._put_aside(connection, device_name, Refused(reason=reason, body=body))
            for record in refused:
                aside += self._put_aside(connection, device_name, record)
        return Ingested(new=new, duplicates=duplicates, quarantined=aside)

    def windows(
        self,
        model: str | None = None,
        device: str | None = None,
        release: str | None = None,
        experiment: str | None = None,
    ) -> list[WindowRecord]:
        """Return windows in the order in which the devices made them.

        That is the order of arrival, since a device sends oldest first; device clocks may jump.
        """
        query = sa.select(windows).order_by(windows.c.id)
        for column, value in (
            (windows.c.model, model),
            (windows.c.device, device),
            (windows.c.release, release),
        ):
            if value is not None:
                query = query.where(column == value)
        if experiment is not None:
            ours = sa.select(experiment_windows.c.window).where(experiment_windows.c.experiment == experiment)
            query = query.where(windows.c.id.in_(ours))
        return [WindowRecord(**{**row, "body": from_text(row["body"])}) for row in self._rows(query)]

    def quarantine(self, device: str | None = None) -> list[QuarantineRecord]:
        """Return the records that were put aside, oldest first."""
        columns = [column for column in quarantine.c if column.name != "sha256"]
        query = sa.select(*columns).order_by(quarantine.c.id)
        if device is not None:
            query = query.where(quarantine.c.device == device)
        return [QuarantineRecord(**{**row, "body": from_text(row["body"])}) for row in self._rows(query)]

    def record_bench(self, device_name: str, body: Mapping[str, Any]) -> int:
        """Record a benchmark (`edgeq.bench/1`) and return its number."""
        return self._insert(
            benches,
            device=device_name,
            model=str(body["model"]),
            release=str(body["release"]),
            created_ns=self._now_ns(),
            body=to_text(body),
        )

    def benches(self, model: str | None = None, device: str | None = None) -> list[BenchRecord]:
        """Return benchmarks, oldest first."""
        query = sa.select(benches).order_by(benches.c.id)
        if model is not None:
            query = query.where(benches.c.model == model)
        if device is not None:
            query = query.where(benches.c.device == device)
        return [BenchRecord(**{**row, "body": from_text(row["body"])}) for row in self._rows(query)]

    def record_experiment(self, experiment: str, event: str, actor: str, body: Mapping[str, Any]) -> int:
        """Record an event of an experiment, durably, and return the record's number."""
        text = to_text(body)
        return self._insert(
            experiments, experiment=experiment, event=event, at_ns=self._now_ns(), actor=actor, body=text
        )

    def experiments(self, experiment: str | None = None) -> list[ExperimentRecord]:
        """Return the events of an experiment, or of all, oldest first.

        Raises:
            StoreError: one of them is damaged.
        """
        query = sa.select(experiments).order_by(experiments.c.id)
        if experiment is not None:
            query = query.where(experiments.c.experiment == experiment)
        rows = self._rows(query)
        try:
            return [ExperimentRecord(**{**row, "body": from_text(row["body"])}) for row in rows]
        except ValueError as error:
            raise StoreError(str(self.path), f"an experiment's record is no JSON: {error}") from error

    def record_audit(self, actor: str, action: str, subject: str, body: Mapping[str, Any]) -> int:
        """Record who did what and return the record's number."""
        text = to_text(body)
        return self._insert(
            audit, at_ns=self._now_ns(), actor=actor, action=action, subject=subject, body=text
        )

    def audit(self, limit: int = 100) -> list[AuditRecord]:
        """Return the newest audit records first."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        return [AuditRecord(**{**row, "body": from_text(row["body"])}) for row in self._rows(query)]

    def _insert(self, table: sa.Table, **values: Any) -> int:
        with said(self.path), self._engine.begin() as connection:
            key = connection.execute(table.insert().values(**values)).inserted_primary_key
        return int(key[0]) if key is not None else 0

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with said(self.path), reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _put_aside(self, connection: sa.Connection, device: str, record: Refused) -> int:
        text = to_text(record.body)
        statement = insert(quarantine).values(
            device=device,
            reason=record.reason,
            received_ns=self._now_ns(),
            sha256=hashlib.sha256(text.encode("ascii")).hexdigest(),
            body=text,
        )
        return connection.execute(statement.on_conflict_do_nothing()).rowcount


def _release(row: Mapping[str, Any]) -> ReleaseRecord:
    reference = row["reference"]
    return ReleaseRecord(
        release=row["release"],
        created_ns=row["created_ns"],
        manifest=from_text(row["manifest"]),
        reference=None if reference is None else from_text(reference),
    )


def _add_window(
    connection: sa.Connection, device: str, device_id: str, body: Mapping[str, Any], text: str
) -> bool:
    statement = insert(windows).values(
        device=device,
        device_id=device_id,
        boot=body["boot"],
        seq=body["seq"],
        model=body["model"],
        release=body["release"],
        started_ns=body["started_ns"],
        ended_ns=body["ended_ns"],
        body=text,
    )
    # Only the window's number may clash silently; anything else is an error.
    unique = ["device_id", "boot", "seq"]
    done = connection.execute(statement.on_conflict_do_nothing(index_elements=unique))
    if done.rowcount != 1:
        return False
    if body.get("experiment") and done.inserted_primary_key is not None:
        number = done.inserted_primary_key[0]
        connection.execute(experiment_windows.insert().values(window=number, experiment=body["experiment"]))
    return True


def _stored_text(connection: sa.Connection, device_id: str, body: Mapping[str, Any]) -> str:
    query = sa.select(windows.c.body).where(
        windows.c.device_id == device_id, windows.c.boot == body["boot"], windows.c.seq == body["seq"]
    )
    return str(connection.execute(query).scalar_one())
