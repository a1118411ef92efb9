"""Command lines in records: what is not secret stays readable, and secrets are not there."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.command_line import redacted


@pytest.mark.parametrize(
    "words",
    [
        ["edgeq", "keys", "new", "--password", "hunter2"],
        ["edgeq", "keys", "new", "--password=hunter2"],
        ["edgeq", "keys", "new", "--key-passphrase", "hunter2"],
        ["edgeq", "exec", "pi", "--", "curl", "-H", "Authorization: Bearer hunter2"],
        ["edgeq", "exec", "pi", "--", "curl -H 'Authorization: Basic hunter2' http://x"],
        ["edgeq", "exec", "pi", "--", "curl", "https://ann:hunter2@host/x"],
        ["edgeq", "exec", "pi", "--", "DB_PASSWORD=hunter2 run"],
        ["edgeq", "exec", "pi", "--", "env", "API_KEY=hunter2", "run"],
        ["edgeq", "exec", "pi", "--", 'echo "secret: hunter2"'],
        ["edgeq", "exec", "pi", "--", "login --token hunter2 && next"],
        ["edgeq", "exec", "pi", "--", "MY_SECRET_TOKEN='hunter2 and more' run"],
    ],
)
def test_a_secret_is_not_in_the_line(words: list[str]) -> None:
    line = redacted(words)
    assert "hunter2" not in line
    assert "***" in line
    assert line.startswith("edgeq ")


@pytest.mark.parametrize(
    "words",
    [
        ["edgeq", "deploy", "kws.eqb", "--to", "label:site=lab", "--yes"],
        ["edgeq", "keys", "trust", "release", "--on", "all"],
        ["edgeq", "exec", "pi", "--", "echo 'a  b' | wc -l"],
        ["edgeq", "devices", "add", "pi", "--host", "pi@host:22", "--fingerprint", "SHA256:abc"],
    ],
)
def test_what_is_not_secret_stays(words: list[str]) -> None:
    assert shlex.split(redacted(words)) == words


@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_words_are_one_bounded_text(words: list[str]) -> None:
    assert len(redacted(words)) <= 2000


def test_a_long_line_is_cut() -> None:
    assert redacted(["x" * 5000]).endswith("...")
