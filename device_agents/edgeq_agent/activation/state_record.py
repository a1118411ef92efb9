"""The state file of a model, `models/<name>/state.json`: its activation and the attempts at each release."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import REFUSED_RELEASE, AgentError
from edgeq_agent.storage import clock
from edgeq_agent.wire import Json

SCHEMA = "edgeq.model-state/1"
NONE = "none"
STAGED = "staged"
VERIFIED = "verified"
ACTIVATING = "activating"
SOAKING = "soaking"
COMMITTED = "committed"
ROLLING_BACK = "rolling_back"
ROLLED_BACK = "rolled_back"
SAFE = "safe"
STATES = (NONE, STAGED, VERIFIED, ACTIVATING, SOAKING, COMMITTED, ROLLING_BACK, ROLLED_BACK, SAFE)

FAILURE_LIMIT = 5
ATTEMPT_LIMIT = 10
# Attempts are counted for so many releases; the one attempted longest ago is forgotten first.
_COUNTED_RELEASES = 32
_LARGEST = 2**63 - 1


# What the state file of a model says before its first activation.
_NEVER = clock.Moment("None", 0)


class _Entry(NamedTuple):
    release: str
    attempts: int


@dataclass(frozen=True)
class Attempts:
    """How often releases were attempted without being committed: this breaks a crash loop.

    The counts are part of the state, so an attempt that restarts the device counts too.
    """

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def parse(cls, fields: Fields) -> Attempts:
        """Return the counts in the field `attempts` of a state file."""

        def entry(items: Fields, name: str) -> _Entry:
            each = items.object(name)
            return _Entry(each.text("release"), each.integer("count", 0, _LARGEST))

        return cls(tuple(fields.list_of("attempts", entry)))

    def to_json(self) -> list[Json]:
        """Return the counts for the state file, the release attempted longest ago first."""
        return [{"release": entry.release, "count": entry.attempts} for entry in self.entries]

    def count(self, release: str) -> int:
        """Return how often a release was attempted since it was last committed."""
        return dict(self.entries).get(release, 0)

    def incremented(self, release: str) -> Attempts:
        """Return the counts after one more attempt."""
        last = _Entry(release, self.count(release) + 1)
        return Attempts((*self.without(release).entries, last)[-_COUNTED_RELEASES:])

    def without(self, release: str) -> Attempts:
        """Return the counts with this release at zero."""
        return Attempts(tuple(entry for entry in self.entries if entry.release != release))

    def check_limit(self, model: str, release: str, reason: str | None) -> None:
        """Refuse a release that was attempted too often.

        Args:
            reason: why the last attempt on this model ended.

        Raises:
            AgentError: EQ520.
        """
        count = self.count(release)
        if count >= ATTEMPT_LIMIT:
            raise AgentError(
                REFUSED_RELEASE,
                f"{model} {release[:12]}",
                f"it was attempted {count} times on this device and never committed"
                + (f"; the last attempt on this model ended with: {reason}" if reason else ""),
                expected=f"at most {ATTEMPT_LIMIT} attempts",
                got=f"{count} attempts",
                hint="read the reason in `edgeq status`, then deploy a fixed bundle; "
                "`edgeq deploy BUNDLE --to DEVICE --retry` attempts the same one again",
            )


@dataclass(frozen=True)
class SoakPolicy:
    """How long a release soaks before it is committed, and how many failures it may have until then."""

    soak_ns: int
    failure_limit: int = FAILURE_LIMIT

    @classmethod
    def parse(cls, fields: Fields) -> SoakPolicy | None:
        """Return the policy in a field of a state file; an empty one means that there is no soak."""
        if not fields.json():
            return None
        return cls(
            fields.integer("soak_ns", 0, _LARGEST, default=0),
            fields.integer("failure_limit", 0, _LARGEST, default=FAILURE_LIMIT),
        )

    def to_json(self) -> Json:
        """Return the policy for the state file."""
        return {"soak_ns": self.soak_ns, "failure_limit": self.failure_limit}


@dataclass(frozen=True)
class StateRecord:
    """The content of a model's state file.

    Attributes:
        state: one of this module's states.
        entered: when that state was entered.
        target, target_runtime, target_history: what the present activation leads to.
        fallback: the release that served before the present activation; None when none did.
        soak: None commits without a soak.
        timeout_s: how long a health check may take.
        tries: how often the present rollback was started.
        runtimes: release -> digest of the runtime that it was committed with.
        history: the releases that served before, the latest last; a rollback goes there.
        health: the last health check, as the response has it; the device stores it and does not read it.
        since_ns: wall-clock time of the last commit; for display only.
    """

    model: str
    state: str = NONE
    entered: clock.Moment = _NEVER
    target: str | None = None
    target_runtime: str | None = None
    target_history: tuple[str, ...] = ()
    fallback: str | None = None
    soak: SoakPolicy | None = None
    timeout_s: float = 0.0
    tries: int = 0
    attempts: Attempts = Attempts()
    runtimes: dict[str, str] = field(default_factory=dict)
    history: tuple[str, ...] = ()
    health: Json = field(default_factory=dict)
    since_ns: int | None = None
    reason: str | None = None

    @classmethod
    def from_json(cls, model: str, body: Any) -> StateRecord:
        """Return the content of a state file; fields that older agents did not write get their defaults.

        Raises:
            ValueError: it is not a state file.
        """
        try:
            return cls._parse(model, Fields(body))
        except AgentError as error:
            raise ValueError(f"is not {SCHEMA}: {error.subject}") from error

    @classmethod
    def _parse(cls, model: str, fields: Fields) -> StateRecord:
        fields.one_of("schema", (SCHEMA,), SCHEMA)

        def name(field: str) -> str | None:
            return fields.file_name(field) if fields.has(field) else None

        return cls(
            model=model,
            state=fields.one_of("state", STATES, NONE),
            entered=clock.Moment(
                str(fields.raw("boot_id")), fields.integer("since_boot_ns", 0, _LARGEST, default=0)
            ),
            target=name("target"),
            target_runtime=name("target_runtime"),
            target_history=tuple(fields.list_of("target_history", Fields.file_name)),
            fallback=name("fallback"),
            soak=SoakPolicy.parse(fields.optional_object("soak")),
            timeout_s=fields.number("timeout_s", 0.0),
            tries=fields.integer("tries", 0, _LARGEST, default=0),
            attempts=Attempts.parse(fields),
            runtimes=fields.map_of("runtimes", Fields.file_name) if fields.has("runtimes") else {},
            history=tuple(fields.list_of("history", Fields.file_name)),
            health=fields.optional_object("health").json(),
            since_ns=fields.integer("since_ns", 0, _LARGEST) if fields.has("since_ns") else None,
            reason=fields.text("reason") if fields.raw("reason") not in (None, "") else None,
        )

    def to_json(self) -> Json:
        """Return the content of the state file."""
        last = self.history[-1] if self.history else None
        return {
            "schema": SCHEMA,
            "model": self.model,
            "state": self.state,
            "boot_id": self.entered.boot_id,
            "since_boot_ns": self.entered.since_boot_ns,
            "target": self.target,
            "target_runtime": self.target_runtime,
            "target_history": list(self.target_history),
            "fallback": self.fallback,
            "soak": self.soak.to_json() if self.soak else {},
            "timeout_s": self.timeout_s,
            "tries": self.tries,
            "attempts": self.attempts.to_json(),
            "runtimes": self.runtimes,
            "history": list(self.history),
            "previous": last,
            "pinned": [name for name in (self.target, last) if name],
            "health": self.health,
            "since_ns": self.since_ns,
            "reason": self.reason,
        }

    @property
    def previous(self) -> str | None:
        """The release that a rollback leads to."""
        if self.state in (SOAKING, ROLLING_BACK):
            return self.fallback
        return self.history[-1] if self.history else None

    def runtime_of(self, release: str | None) -> str | None:
        """Return the digest of the runtime that a release serves with.

        Between the swap of the link and the commit, the target serves although it is not committed yet.
        """
        if release is None:
            return None
        if self.state in (ACTIVATING, SOAKING, ROLLING_BACK) and release == self.target:
            return self.target_runtime
        return self.runtimes.get(release)
