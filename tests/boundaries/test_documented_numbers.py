"""Guard on the numbers of the pages: limits and defaults are those of the code."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.cli.device_options import DEFAULT_RETRIES, DEPLOY_RETRIES
from edgeq.fleet import run_command
from edgeq.fleet.backoff import Backoff
from edgeq_agent import Runtime
from edgeq_agent.activation import soak, state_record
from edgeq_agent.http import head, serve
from edgeq_agent.http.limits import Limits
from edgeq_agent.storage import journal, log_file
from edgeq_agent.verbs.logs import MOST_LINES

WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 10: "ten"}
MIB = 1 << 20


def of_runtime() -> list[str]:
    """Return what docs/runtime.md has to say."""
    given: Any = argparse.Namespace(
        **{name: each.default for name, each in inspect.signature(Runtime).parameters.items()}
    )
    served = serve.serve_parser(argparse.ArgumentParser).parse_args([])
    limits = Limits()
    assert (limits.body_bytes, limits.requests) == (served.max_body, served.max_requests)
    return [
        f"every `poll_s` (default {given.poll_s:g} s)",
        f"`Runtime(sessions={given.sessions})` may be open",
        f"`session_idle_s` ({given.session_idle_s:g}) ends",
        f"for at most `session_finish_s` ({given.session_finish_s:g})",
        f"`{given.on_swap}` (the default)",
        f"The last `feedback` ({given.feedback:,}) answers",
        f"`window` ({given.window}) inferences",
        f"before `window_least_s` ({given.window_least_s:g})",
        f"after `window_s` ({given.window_s:g})",
        f"`--max-body` ({limits.body_bytes // MIB} MiB)",
        f"`--max-requests` ({limits.requests}) in parallel",
        f"`--sessions` ({served.sessions}) sequences",
        f"headers of more than {head.HEAD_BYTES >> 10} KiB",
        f"Headers must arrive within {limits.header_s:g} s and a body within {limits.body_s:g} s.",
        f"{limits.connections} connections may be open.",
        f"headers must arrive within {limits.loaded_header_s:g} s",
        f"beyond the limit ({limits.newcomers})",
        f"{WORDS[limits.reserved]} places are for requests on health",
        f"at least {limits.body_grace_s:g} s",
        f"waits up to {serve.STOP_S:g} s for those that run",
    ]


def of_deploy() -> list[str]:
    """Return what docs/deploy.md has to say."""
    waits = Backoff()
    return [
        f"{DEFAULT_RETRIES} by default, {DEPLOY_RETRIES} for a plain `edgeq deploy`",
        f"waits start at {WORDS[int(waits.first_s)]} second and double",
        f"no attempt starts after {WORDS[int(waits.total_s / 60)]} minutes",
        f"`failure_limit` ({state_record.FAILURE_LIMIT})",
        f"more than {WORDS[soak.CRASH_LIMIT]} crashes",
        f"tried {WORDS[state_record.ATTEMPT_LIMIT]} times without a commit",
        f"At most {run_command.MOST_OUTPUT_BYTES // MIB} MiB of its output",
        f"`--timeout` ({run_command.DEFAULT_TIMEOUT_S:g} s)",
        f"each change of state, up to {2 * journal.MAX_BYTES // MIB} MiB",
        f"`service/serve.log`, up to {2 * log_file.MAX_BYTES // MIB} MiB",
        f"`crash.log`, up to {2 * log_file.MAX_BYTES // MIB} MiB",
        f"at most {MOST_LINES:,} entries",
    ]


@pytest.mark.parametrize(("page", "numbers"), [("runtime", of_runtime), ("deploy", of_deploy)])
def test_the_numbers_of_a_page_are_those_of_the_code(
    project_root: Path, page: str, numbers: Callable[[], list[str]]
) -> None:
    text = " ".join((project_root / "docs" / f"{page}.md").read_text("utf-8").split())
    assert [number for number in numbers() if number not in text] == []
