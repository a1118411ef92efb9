"""Threads with deadlines: beside each other, given up when they are late, and a bug is not swallowed."""

from __future__ import annotations

import threading
import time

import pytest

from edgeq.fleet.rollout.pool import ThreadPool
from edgeq.fleet.rollout.protocols import NoAnswer


def drain(pool: ThreadPool) -> dict[str, object]:
    answers: dict[str, object] = {}
    while pool.busy:
        answers.update(pool.wait(10))
    return answers


def test_jobs_run_beside_each_other_and_each_comes_back_once() -> None:
    pool, meet = ThreadPool(), threading.Barrier(4)
    for number in range(4):
        pool.submit(f"d{number}", lambda: meet.wait(20) >= 0, deadline_s=30)
    assert pool.busy == 4
    assert drain(pool) == dict.fromkeys(("d0", "d1", "d2", "d3"), True)
    assert pool.wait(10) == []


def test_a_job_that_never_ends_is_given_up_and_what_it_says_later_is_not_heard() -> None:
    pool, late = ThreadPool(), threading.Event()
    pool.submit("mute", late.wait, deadline_s=0.05)
    pool.submit("good", lambda: "answer", deadline_s=30)
    answers = drain(pool)
    assert answers["good"] == "answer"
    assert isinstance(answers["mute"], NoAnswer)
    pool.submit("mute", lambda: "second try", deadline_s=30)
    late.set()
    assert drain(pool) == {"mute": "second try"}


def test_wait_comes_back_after_its_timeout_with_nothing() -> None:
    pool, hold = ThreadPool(), threading.Event()
    pool.submit("slow", hold.wait, deadline_s=60)
    started_s = time.monotonic()
    assert pool.wait(0.05) == []
    assert 0.05 <= time.monotonic() - started_s < 30
    hold.set()
    assert drain(pool) == {"slow": True}


def test_a_bug_in_a_job_is_raised() -> None:
    pool = ThreadPool()
    pool.submit("d", lambda: 1 // 0, deadline_s=30)
    with pytest.raises(ZeroDivisionError):
        drain(pool)
