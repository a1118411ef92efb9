"""Damaged files: renamed instead of overwritten, and reported in the response and in the journal.

A file counts as damaged when it cannot be read as what it must be: cut short, empty, of another type, written
by a newer agent, not readable by this user, or a folder. Its content is not lost: it stays beside the new
file as `<name>.damaged-<time>`, of which the newest few are kept.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Callable, Deque, NamedTuple

from edgeq_agent.errors import AgentError
from edgeq_agent.storage import clock, disk, files, journal, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

_MARK = ".damaged-"
_KEPT = 3
# What belongs to a database file and has to be renamed with it.
_COMPANIONS = ("-wal", "-shm", "-journal")


class Damage(NamedTuple):
    """One damaged file.

    Attributes:
        file: its path below the home.
        problem: what is wrong with it.
        lost: what is lost, or what was done instead.
        kept_as: the name that it has now, beside its old one; None when it could not be renamed.
    """

    file: str
    problem: str
    lost: str
    kept_as: str | None

    def to_json(self) -> Json:
        """Return it as a response has it."""
        return dict(self._asdict())

    @property
    def text(self) -> str:
        """It as one line."""
        kept = f"; kept as {self.kept_as}" if self.kept_as else ""
        return f"{self.file} {self.problem}{kept}; {self.lost}"


class Inspection(NamedTuple):
    """How to recognize and repair one damaged file of JSON.

    Attributes:
        parse: raises ValueError or AgentError when the file's value is not what it must be.
        lost: what is lost with it.
        repair: runs once the file is renamed.
    """

    path: str
    parse: Callable[[Any], object]
    lost: str
    repair: Callable[[], object] = dict

    def problem(self) -> str | None:
        """Return what is wrong with the file; None when it is sound or does not exist."""
        try:
            self.parse(files.read_json(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except AgentError as error:
            return f"is damaged: {error.subject}"
        except ValueError as error:
            text = str(error)
            return text if text.startswith(("is ", "has ", "cannot ")) else f"is damaged: {text}"
        return None


_reports: Deque[Damage] = deque(maxlen=50)


def set_aside(home: Home, path: str, problem: str, lost: str) -> None:
    """Rename a damaged file, and report it.

    Raises:
        OSError: the disk refuses.
    """
    kept = rename(path)
    report(home, Damage(os.path.relpath(path, home.root), problem, lost, kept))


def try_to_set_aside(home: Home, path: str, problem: str, lost: str) -> None:
    """As `set_aside`; when the disk refuses, the report says how to do it by hand."""
    try:
        set_aside(home, path, problem, lost)
    except OSError as error:
        report_refusal(home, path, problem, error)


def rename(path: str) -> str:
    """Rename a damaged file, with what belongs to it; return its new name in the same folder.

    Raises:
        OSError: the disk refuses.
    """
    # Not the clock alone: a device without one may boot into the same second twice.
    kept = f"{path}{_MARK}{clock.wall_ns()}"
    while os.path.lexists(kept):
        kept += "0"
    for companion in ("", *_COMPANIONS):
        if os.path.lexists(path + companion):
            disk.replace(path + companion, kept + companion)
    disk.sync_folder(os.path.dirname(path))
    _remove_old(path)
    return os.path.basename(kept)


def repair(home: Home, inspection: Inspection) -> None:
    """Replace a file if it is damaged; when the disk refuses that, report it (lock held)."""
    problem = inspection.problem()
    if problem is None:
        return
    path = inspection.path
    try:
        set_aside(home, path, problem, inspection.lost)
        inspection.repair()
    except OSError as error:
        report_refusal(home, path, problem, error)


def report_refusal(home: Home, path: str, problem: str, error: OSError) -> None:
    """Report a damage that the disk refuses to repair, with the command that does it by hand."""
    hint = f"it could not be replaced ({error.strerror}): run `mv {path} {path}.old` on the device"
    report(home, Damage(os.path.relpath(path, home.root), problem, hint, None))


def report(home: Home, damage: Damage) -> None:
    """Report a damage in the response of this call and in the journal."""
    _reports.append(damage)
    # The report is what matters: a journal that cannot be written is reported where it is the subject.
    journal.note(home, "damaged", **damage.to_json())


def take_reports() -> list[Damage]:
    """Return what was reported since the last call, oldest first."""
    reports = []
    while _reports:
        reports.append(_reports.popleft())
    return reports


def _remove_old(path: str) -> None:
    folder, name = os.path.split(path)
    kept = [entry for entry in os.listdir(folder) if entry.startswith(name + _MARK)]
    kept = [entry for entry in kept if not entry.endswith(_COMPANIONS)]
    for entry in sorted(kept, key=lambda entry: os.lstat(os.path.join(folder, entry)).st_ctime_ns)[:-_KEPT]:
        for companion in ("", *_COMPANIONS):
            scratch.remove(os.path.join(folder, entry + companion))
