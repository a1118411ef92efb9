"""The table of verbs: every verb has a function, and some of them recover their model themselves."""

from __future__ import annotations

import pytest

from edgeq_agent import verbs, wire

# They change which release serves or stays, so they hold the lock and fail when recovery fails.
RECOVER_THEMSELVES = {
    "activate", "rollback", "soak", "recover", "pin", "unpin", "stage", "unstage", "split", "prune",
}  # fmt: skip


@pytest.mark.parametrize("name", wire.VERBS)
def test_every_verb_has_a_documented_function(name: str) -> None:
    verb = verbs.load(name)
    assert callable(verb)
    assert verb.__doc__


def test_the_verbs_that_recover_their_model_themselves() -> None:
    marked = {name for name in wire.VERBS if not verbs.needs_recovery(verbs.load(name))}
    assert marked == RECOVER_THEMSELVES
