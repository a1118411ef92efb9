"""The loop breaker: how often a release was tried here without ever being committed."""

from __future__ import annotations

from edgeq_agent.errors import REFUSED_RELEASE, AgentError
from edgeq_agent.wire import Json

LIMIT = 10
# Of as many releases the count is kept; the one tried longest ago is forgotten first.
_RELEASES = 32


class Attempts:
    """Counts by release; kept in the state, so that a device that restarts in the middle counts too."""

    def __init__(self, body: list[Json]) -> None:
        self._counts = [(str(entry["release"]), int(entry["count"])) for entry in body]

    def of(self, release: str) -> int:
        """Return how often a release was tried since it was last committed."""
        return dict(self._counts).get(release, 0)

    def with_one_more(self, release: str) -> Attempts:
        """Return the counts after one more attempt."""
        one = {"release": release, "count": self.of(release) + 1}
        return Attempts([*self.without(release).body(), one][-_RELEASES:])

    def without(self, release: str) -> Attempts:
        """Return the counts with this one at none: it was committed, or somebody wants it tried again."""
        return Attempts([entry for entry in self.body() if entry["release"] != release])

    def body(self) -> list[Json]:
        """Return what is stored, tried longest ago first."""
        return [{"release": release, "count": count} for release, count in self._counts]

    def check(self, model: str, release: str, reason: str | None) -> None:
        """Refuse a release that failed too often.

        Raises:
            AgentError: EQ520.
        """
        count = self.of(release)
        if count >= LIMIT:
            raise AgentError(
                REFUSED_RELEASE,
                f"{model} {release[:12]}",
                f"it was tried {count} times on this device and never committed"
                + (f"; the last attempt on this model ended with: {reason}" if reason else ""),
                expected=f"at most {LIMIT} attempts",
                got=f"{count} attempts",
                hint="read the reason in `edgeq status`, then deploy a mended bundle; "
                "`edgeq deploy BUNDLE --to DEVICE --retry` tries the same one again",
            )
