"""Retries: which errors, how long between attempts, and what is never retried."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from edgeq.bundle.keys import workspace_key
from edgeq.errors import (
    AuthenticationFailed,
    DeviceTimeout,
    EdgeqError,
    HealthCheckFailed,
    HostKeyMismatch,
    LinkLost,
    SourceChanged,
    TransportError,
    Unreachable,
    UsageError,
)
from edgeq.fleet.backoff import Backoff, RetryPolicy, retrying
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.trust import pin
from edgeq.testing.faulty_link import faulty_link
from tests.fleet.servers import Read, Server


class FakeClock:
    """A clock on which sleeping takes no time, with a fixed jitter."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.slept: list[float] = []
        self._jitter = jitter

    def now_s(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def jitter(self) -> float:
        return self._jitter


def failing(error: EdgeqError, times: int) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def action() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return action, calls


@pytest.mark.parametrize("error", [Unreachable("pi"), LinkLost("pi"), DeviceTimeout("pi")])
def test_transient_errors_are_retried_with_growing_waits(error: EdgeqError) -> None:
    action, calls = failing(error, 3)
    clock, retries = FakeClock(), []
    policy = RetryPolicy(backoff=Backoff(), on_retry=lambda e, s: retries.append((e, s)))
    assert retrying(action, policy, clock=clock, jitter=clock.jitter) == "done"
    assert clock.slept == [1.0, 2.0, 4.0]
    assert retries == [(error, 1.0), (error, 2.0), (error, 4.0)]
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailed("pi"),
        HostKeyMismatch("pi"),
        TransportError("pi"),
        SourceChanged("file"),
        HealthCheckFailed("pi"),
        UsageError("x"),
    ],
)
def test_what_does_not_pass_is_tried_once(error: EdgeqError) -> None:
    action, calls = failing(error, 1)
    clock = FakeClock()
    with pytest.raises(type(error)):
        retrying(action, RetryPolicy(backoff=Backoff()), clock=clock, jitter=clock.jitter)
    assert (len(calls), clock.slept) == (1, [])


def test_there_is_an_end_by_count_and_by_time() -> None:
    action, calls = failing(LinkLost("pi"), 100)
    with pytest.raises(LinkLost):
        retrying(action, RetryPolicy(backoff=Backoff(tries=4)), clock=FakeClock())
    assert len(calls) == 4
    action, calls = failing(LinkLost("pi"), 100)
    clock = FakeClock()
    policy = RetryPolicy(backoff=Backoff(tries=100, total_s=60))
    with pytest.raises(LinkLost):
        retrying(action, policy, clock=clock, jitter=clock.jitter)
    assert sum(clock.slept) <= 60
    assert max(clock.slept) <= 30


@pytest.mark.parametrize(("jitter", "waits"), [(0.0, [0.5, 1.0]), (0.5, [0.75, 1.5]), (1.0, [1.0, 2.0])])
def test_half_of_a_wait_is_jitter(jitter: float, waits: list[float]) -> None:
    action, _ = failing(LinkLost("pi"), 2)
    clock = FakeClock(jitter)
    retrying(action, RetryPolicy(backoff=Backoff()), clock=clock, jitter=clock.jitter)
    assert clock.slept == waits


@pytest.mark.slow
def test_a_deploy_whose_link_is_cut_resumes_where_it_was(
    loopback_server: Server, site: Path, read: Read
) -> None:
    bundle = read("padded")
    with faulty_link(loopback_server.host, loopback_server.port) as link:
        device = replace(loopback_server.device("again", port=link.port), home=".edgeq-again")
        with open_agent(device) as client:
            pin(client, [workspace_key(site).public])
        planned = plan_one(device, bundle, workspace=site)
        link.cut_after(20_000_000)
        failures: list[EdgeqError] = []

        def retry(error: EdgeqError, _wait_s: float) -> None:
            failures.append(error)
            link.clear()

        policy = RetryPolicy(backoff=Backoff(tries=3, first_s=0.1), on_retry=retry)
        before = link.forwarded_bytes
        done = deploy_one(device, bundle, workspace=site, planned=planned, retry_policy=policy)
        travelled = link.forwarded_bytes - before
    assert [type(failure) for failure in failures] == [LinkLost]
    assert done.release == bundle.release
    # Not twice: what was on its way when the link was cut is all that may travel again. While the agent
    # starts that is 8 MiB, and as long as it does not read, a few more in buffers and in SSH's window.
    assert travelled < planned.plan.send_bytes + 17_000_000


def test_a_refused_login_reaches_the_device_once(
    loopback_server: Server, site: Path, tmp_path: Path, read: Read
) -> None:
    wrong = tmp_path / "wrong"
    paramiko.RSAKey.generate(2048).write_private_key_file(str(wrong))
    retries: list[EdgeqError] = []
    with faulty_link(loopback_server.host, loopback_server.port) as link:
        device = loopback_server.device("locked", port=link.port, identity=wrong)
        with pytest.raises(AuthenticationFailed):
            deploy_one(
                device,
                read("first"),
                workspace=site,
                retry_policy=RetryPolicy(
                    backoff=Backoff(first_s=0.01), on_retry=lambda error, _: retries.append(error)
                ),
            )
    assert retries == []


def test_a_dropped_handshake_is_tried_again(loopback_server: Server) -> None:
    with faulty_link(loopback_server.host, loopback_server.port) as link:
        device = loopback_server.device("dropped", port=link.port)
        link.cut_after(1)

        def ask() -> str:
            with open_agent(device) as client:
                return client.facts().device_id

        with contextlib.suppress(LinkLost):
            retrying(ask, RetryPolicy(backoff=Backoff(tries=1)))
            raise AssertionError("the link was not cut")
        policy = RetryPolicy(backoff=Backoff(first_s=0.01), on_retry=lambda *_: link.clear())
        assert retrying(ask, policy)
