"""Run a scenario with a fault, restart the device, and check that it is consistent and can finish."""

from __future__ import annotations

import errno
import hashlib
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeq_agent.activation import active_release
from edgeq_agent.inference.job import InferOptions
from edgeq_agent.storage import home

KEPT = "kept"  # killed: everything that was written stays
HALF = "half"  # killed in the middle of a write
ERRORS = {errno.ENOSPC: "EQ501", errno.EROFS: "EQ503", errno.EIO: "EQ522"}


class Lab:
    """One machine, its scenarios, and the disks that were found consistent already."""

    def __init__(self, injection: SimpleNamespace, machine: Any, payload: Path, scenarios: list[Any]) -> None:
        self.machine = machine
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.tally = injection.tally
        self._modules = injection
        self._payload = payload
        self._well: set[Any] = set()

    def operations(self, name: str) -> list[str]:
        """Return the operations of a run without faults, which must succeed."""
        scenario = self.scenarios[name]
        self.machine.load(scenario.before)
        self._to_the_end(scenario)
        done = list(self.machine.disk.done)
        self._is_at_end(scenario)
        return done

    def syncs(self, name: str) -> set[str]:
        """Return the places that sync in a run without faults."""
        self.operations(name)
        return set(self.machine.disk.syncs)

    def cut(self, name: str, at: int, how: str, *, deaf: str | None = None) -> None:
        """Cut the power after operation `at` (past the last: after the response), and check the device."""
        scenario, machine = self.scenarios[name], self.machine
        machine.load(scenario.before)
        fault = self._modules.machine.Fault(at=at, half=how == HALF)
        machine.attach(fault, deaf)
        answered = []
        try:
            for step in scenario.steps:
                answer = step.act(machine)
                assert answer is None or answer["event"] == "result", answer
                answered.append(step)
        except self._modules.machine.PowerCut:
            self.tally["kills" if how in (KEPT, HALF) else "power cuts"] += 1
        if how in (KEPT, HALF):
            machine.restart()
        else:
            machine.restart(machine.after_cut(how, random.Random(f"{how} {at}")))  # noqa: S311 - no secret
        key = (
            name,
            len(answered),
            machine.clock.boot,
            _digest(self._modules.page_cache.read_tree(machine.root)),
        )
        if deaf is None and key in self._well:
            return  # the same disk was found consistent after an earlier operation
        self._comes_back(scenario, answered)
        self._well.add(key)

    def _comes_back(self, scenario: Any, answered: list[Any]) -> None:
        machine, scenarios = self.machine, self._modules.scenarios
        scenarios.whole(machine, scenario.serves)
        scenario.always(machine)
        for step in answered:
            step.check(machine)
        self._loads()
        answer = machine.call("recover")
        assert answer["event"] == "result", answer
        scenarios.whole(machine, scenario.serves)
        scenario.always(machine)
        self._loads()
        self._to_the_end(scenario)
        self._is_at_end(scenario)

    def _to_the_end(self, scenario: Any) -> None:
        for step in scenario.steps:
            answer = step.act(self.machine)
            assert answer is None or answer["event"] == "result", answer

    def _is_at_end(self, scenario: Any) -> None:
        scenarios = self._modules.scenarios
        scenarios.whole(self.machine, scenario.serves)
        ended = (scenarios.current(self.machine), scenarios.state_of(self.machine)["state"])
        assert ended == scenario.ends
        scenario.settled(self.machine)
        scenarios.clean(self.machine)
        self._loads()

    def _loads(self) -> None:
        """Run a real inference with the active release."""
        if self._modules.scenarios.current(self.machine) is None:
            return
        with self.machine.inside():
            active = active_release.find(home.Home(str(self.machine.home)), "tiny")
            options = InferOptions(window=50, outputs=False, threads=1)
            result = active.backend.infer(active.files, options, str(self._payload), 60, lambda _: None)
        assert (result.samples, result.errors) == (3, {})

    def refuse(self, name: str, at: int, error: int, *, lasting: bool) -> bool:
        """Let operation `at` fail; check that the error names the cause and that the device is consistent.

        Returns:
            False when nothing failed: an operation that needs no space cannot fail on a full disk.
        """
        scenario, machine, scenarios = self.scenarios[name], self.machine, self._modules.scenarios
        machine.load(scenario.before)
        machine.attach(self._modules.machine.Fault(at=at, error=error, lasting=lasting))
        refused, absorbed = None, False
        for step in scenario.steps:
            before = scenarios.current(machine)
            answer = step.act(machine)
            if answer is None:
                continue
            if answer["event"] == "error":
                refused = answer["error"]
                break
            text = repr(answer["result"])
            absorbed = absorbed or "journal_problem" in text or "split_problem" in text
        if machine.disk.hit is None:
            return False
        self.tally["refusals of the disk"] += 1
        scenarios.whole(machine, scenario.serves)
        if refused is not None:
            assert refused["code"] == ERRORS[error], refused
            assert any(cause in refused["problem"] for cause in ("space", "refuses", "disk reports an error"))
            if not lasting and name in ("install", "update", "rollback"):
                assert scenarios.current(machine) == before, "what served before the call serves"
        else:
            # Leftover files that could not be removed are not reported: the next call removes them. A file
            # system that refuses a link is treated as one without links: a rename does the same.
            assert absorbed or machine.disk.hit in ("unlink", "rmdir", "link"), machine.disk.hit
        self._loads()
        litter = machine.disk.hit == "unlink"
        machine.repair()
        if (
            refused is not None
            and not lasting
            and name != "prune"
            and (machine.home / "tmp").exists()
            and not litter
        ):
            assert list((machine.home / "tmp").iterdir()) == [], "half-made things go at once"
        self._comes_back(scenario, [])
        return True


def _digest(tree: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for path, what in sorted(tree.items()):
        digest.update(repr((path, what)).encode())
    return digest.hexdigest()
