"""The agent's home folder: the paths in it; only its owner can read it."""

from __future__ import annotations

import os
from typing import NamedTuple

from edgeq_agent.storage import disk

DEFAULT = "~/.edgeq"


class Home(NamedTuple):
    """The paths below one home folder."""

    root: str

    def path(self, *parts: str) -> str:
        """Return a path below the home."""
        return os.path.join(self.root, *parts)

    @property
    def blobs(self) -> str:
        return self.path("blobs", "sha256")

    @property
    def releases(self) -> str:
        return self.path("releases")

    @property
    def models(self) -> str:
        return self.path("models")

    @property
    def runtimes(self) -> str:
        return self.path("runtime")

    @property
    def agents(self) -> str:
        """The folder of the agent's own files, which the host writes."""
        return self.path("agent")

    @property
    def temporary(self) -> str:
        """The folder of unfinished files; on the same file system as the rest, so that a rename is atomic."""
        return self.path("tmp")

    @property
    def partials(self) -> str:
        """The folder of incomplete blobs, each called `<SHA-256 of the complete blob>.<owner>`."""
        return self.path("partial")

    @property
    def partials_lock(self) -> str:
        """The lock that is held while an incomplete blob is written or changes its owner."""
        return self.path("partial.lock")

    @property
    def open_windows(self) -> str:
        """The folder of the counts of open windows, one file for each runtime."""
        return self.path("open-windows")

    @property
    def journal(self) -> str:
        return self.path("journal")

    @property
    def crash_log(self) -> str:
        """The log of the agent's own bugs, with their tracebacks."""
        return self.path("crash.log")

    @property
    def outbox(self) -> str:
        return self.path("outbox.db")

    @property
    def lock(self) -> str:
        return self.path("lock")

    @property
    def device(self) -> str:
        return self.path("device.json")

    @property
    def trust(self) -> str:
        """The file of the trusted keys and the release counters."""
        return self.path("trust.json")

    def blob(self, sha256: str) -> str:
        return os.path.join(self.blobs, sha256)

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def model(self, model: str) -> str:
        return os.path.join(self.models, model)

    def runtime(self, digest: str) -> str:
        return os.path.join(self.runtimes, digest)

    def model_names(self) -> list[str]:
        """Return the names of the models that have a folder; a stray file is not a model."""
        names = sorted(os.listdir(self.models)) if os.path.isdir(self.models) else []
        return [name for name in names if os.path.isdir(self.model(name))]

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder that a home has."""
        return (
            self.root,
            os.path.dirname(self.blobs),
            self.blobs,
            self.releases,
            self.models,
            self.runtimes,
            self.temporary,
            self.partials,
        )

    def ensure(self) -> None:
        """Create the missing folders, readable by the owner only."""
        for folder in self.folders:
            disk.make_folders(folder)


def locate(option: str | None) -> Home:
    """Return the home that `--home`, `$EDGEQ_HOME` or the default names, as an absolute path."""
    chosen = option or os.environ.get("EDGEQ_HOME") or DEFAULT
    return Home(os.path.abspath(os.path.expanduser(chosen)))


def free_inodes(folder: str) -> int | None:
    """Return how many files an ordinary user can still create; None where the file system sets no limit.

    btrfs and some others create inodes on demand and report 0.
    """
    status = os.statvfs(folder)
    return status.f_favail if status.f_files else None


def free_bytes(folder: str) -> int:
    """Return how many bytes an ordinary user can still write to the file system of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
