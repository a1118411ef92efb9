"""Fault scenarios of an experiment: stage a release, split the calls, end the split, promote an arm."""

from __future__ import annotations

from typing import Any

from edgeq_agent.activation import candidates, state_record
from edgeq_agent.storage import home
from tests.agent.injection.scenarios import Scenario, committed, journal_has, state_of, verb, whole


def stage(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    """A second release is checked and kept; the active release stays, and `prune` keeps both."""

    def kept(machine: Any) -> None:
        place = home.Home(str(machine.home))
        assert list(candidates.read(place, "tiny")) == [new.release], "the response says staged"
        assert (machine.home / "releases" / new.release).is_dir(), "the response says staged"

    def check(machine: Any) -> None:
        kept(machine)
        journal_has(machine, "stage")

    def settled(machine: Any) -> None:
        kept(machine)
        assert state_of(machine)["attempts"] == []
        answer = machine.call("prune")
        assert new.release not in answer["result"]["removed"]["releases"]
        whole(machine, (old.release,))

    return Scenario(
        name="stage",
        before=before,
        steps=[verb("stage", check, **new.request())],
        serves=(old.release,),
        ends=(old.release, state_record.COMMITTED),
        settled=settled,
    )


def arms(old: Any, new: Any) -> dict[str, Any]:
    """Return the request that splits the calls between two releases."""
    sides = (("a", old.release, 0.9), ("b", new.release, 0.1))
    entries = [{"name": name, "release": release, "weight": weight} for name, release, weight in sides]
    return {"model": "tiny", "arms": entries, "salt": "s", "experiment": "tiny-1", "draw": "calls"}


def split(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    def counts(machine: Any) -> None:
        status = candidates.status(home.Home(str(machine.home)), "tiny").to_json()
        assert status["in_force"], "the response says that it is split"
        assert [arm["release"] for arm in status["split"]["arms"]] == [old.release, new.release]

    return Scenario(
        name="split",
        before=before,
        steps=[verb("split", counts, **arms(old, new))],
        serves=(old.release,),
        ends=(old.release, state_record.COMMITTED),
        settled=counts,
    )


def end_split(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    """End the experiment: first remove the split, then the candidate."""

    def cleared(machine: Any) -> None:
        assert candidates.status(home.Home(str(machine.home)), "tiny").to_json()["split"] is None, (
            "the response says cleared"
        )

    def gone(machine: Any) -> None:
        cleared(machine)
        assert candidates.read(home.Home(str(machine.home)), "tiny") == {}, "the response says unstaged"

    steps = [
        verb("split", cleared, model="tiny", clear=True),
        verb("unstage", gone, model="tiny", release=new.release),
    ]
    return Scenario(
        name="end split",
        before=before,
        steps=steps,
        serves=(old.release,),
        ends=(old.release, state_record.COMMITTED),
        settled=gone,
    )


def promote(old: Any, new: Any, before: dict[str, Any]) -> Scenario:
    """Activate an arm of the split: it alone serves, and no split is left."""

    def settled(machine: Any) -> None:
        status = candidates.status(home.Home(str(machine.home)), "tiny").to_json()
        assert (status["split"], status["staged"]) == (None, {})

    return Scenario(
        name="promote",
        before=before,
        steps=[verb("activate", committed(new.release), **new.request()), verb("recover")],
        serves=(old.release, new.release),
        ends=(new.release, state_record.COMMITTED),
        settled=settled,
    )
