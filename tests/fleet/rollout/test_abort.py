"""Abort rules: the exact comparison, the minimum sample, and stopping where a rule cannot be judged."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import (
    AgentProtocolError,
    AuthenticationFailed,
    DeviceBusy,
    DeviceError,
    DeviceOutOfSpace,
    DeviceTimeout,
    DeviceUnsupported,
    EdgeqError,
    HealthCheckFailed,
    HostKeyMismatch,
    LinkLost,
    Unreachable,
    UsageError,
)
from edgeq.fleet.names import unknown
from edgeq.fleet.rollout.abort import DEFAULT, RuleAction, Tally, parse_rules
from edgeq.fleet.rollout.outcomes import CLASSES, FAILURES, Outcome, outcome_of


def action_of(text: str, attempted: int, **failed: int) -> RuleAction:
    counts = {Outcome(name): count for name, count in failed.items()}
    return parse_rules(text).judge(Tally(attempted=attempted, failed=counts)).action


@pytest.mark.parametrize(
    ("text", "attempted", "failed", "expected"),
    [
        ("failed>5%", 20, 1, RuleAction.GO),  # exactly 5 % is not more than 5 %
        ("failed>5%", 19, 1, RuleAction.ABORT),
        ("failed>=5%", 20, 1, RuleAction.ABORT),
        ("failed>=5%", 21, 1, RuleAction.GO),
        ("failed>5%,min=5", 4, 4, RuleAction.GO),
        ("failed>5%,min=5", 5, 1, RuleAction.ABORT),
        ("failed>=3", 1000, 2, RuleAction.GO),
        ("failed>=3", 3, 3, RuleAction.ABORT),
        ("failed>3", 100, 3, RuleAction.GO),
        ("failed>3,min=1000", 4, 4, RuleAction.ABORT),  # a count needs no sample
        ("failed>0", 0, 0, RuleAction.GO),
        ("failed>0%", 10**9, 1, RuleAction.ABORT),
        ("failed>33.333333%", 3, 1, RuleAction.ABORT),
        ("failed>33.4%", 3, 1, RuleAction.GO),
        ("failed>100%", 5, 5, RuleAction.GO),
    ],
)
def test_the_comparison_is_exact(text: str, attempted: int, failed: int, expected: RuleAction) -> None:
    assert action_of(text, attempted, failed=failed) is expected


def test_devices_without_any_failure_go_on() -> None:
    assert parse_rules(DEFAULT).judge(Tally(attempted=7, failed={})).action is RuleAction.GO


def test_silence_is_unreachable_and_timed_out_together() -> None:
    assert action_of("silent>10%", 20, unreachable=1, timed_out=1) is RuleAction.GO
    assert action_of("silent>10%", 20, unreachable=1, timed_out=2) is RuleAction.ABORT
    assert action_of("unreachable>10%,timed_out>10%", 20, unreachable=1, timed_out=2) is RuleAction.GO
    assert action_of("any>10%", 20, refused=1, failed=1, rolled_back=1) is RuleAction.ABORT


@pytest.mark.parametrize(
    ("rule", "attempted", "failed", "reason"),
    [
        ("any>10%", 5, {Outcome.TIMED_OUT: 1}, "1 of 5 devices failed (20 %, limit 10 %)"),
        ("failed>5%,silent>10%", 6, {Outcome.TIMED_OUT: 1}, "1 of 6 devices silent (16.67 %, limit 10 %)"),
        ("any>=20%", 5, {Outcome.FAILED: 1}, "1 of 5 devices failed (20 %, limit below 20 %)"),
        ("rolled_back>=1", 5, {Outcome.ROLLED_BACK: 1}, "1 of 5 devices rolled back (limit 0)"),
        ("timed_out>3", 40, {Outcome.TIMED_OUT: 4}, "4 of 40 devices timed out (limit 3)"),
        ("any>10%", 10_000, {Outcome.REFUSED: 1001}, "1001 of 10000 devices failed (10.01 %, limit 10 %)"),
        ("any>2.5%", 8, {Outcome.REFUSED: 1}, "1 of 8 devices failed (12.5 %, limit 2.5 %)"),
    ],
)
def test_the_reason_has_the_count_the_share_and_the_limit(
    rule: str, attempted: int, failed: dict[Outcome, int], reason: str
) -> None:
    assert parse_rules(rule).judge(Tally(attempted=attempted, failed=failed)).reason == reason


@pytest.mark.parametrize(
    ("attempted", "failed"),
    [(5, {Outcome.FAILED: 6}), (-1, {}), (5, {Outcome.FAILED: -1}), (1, dict.fromkeys(FAILURES, 1))],
)
def test_counts_that_do_not_add_up_pause(attempted: int, failed: dict[Outcome, int]) -> None:
    verdict = parse_rules("failed>50%").judge(Tally(attempted=attempted, failed=failed))
    assert verdict.action is RuleAction.PAUSE


def test_what_no_rule_has_looked_at_is_uncovered() -> None:
    rules = parse_rules("failed>50%,silent>50%,rolled_back>=2,min=5")
    failed = {Outcome.FAILED: 1, Outcome.TIMED_OUT: 1, Outcome.ROLLED_BACK: 1, Outcome.REFUSED: 1}
    assert rules.uncovered(Tally(attempted=4, failed=failed)) == (
        Outcome.TIMED_OUT,
        Outcome.REFUSED,
        Outcome.FAILED,
    )
    assert rules.uncovered(Tally(attempted=5, failed=failed)) == (Outcome.REFUSED,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faild>5%", "unknown class of failures 'faild'; did you mean 'failed'?"),
        ("silnt>5%", "did you mean 'silent'?"),
        ("failed>5%,", "'' is not a rule"),
        ("failed=5%", "'failed=5%' is not a rule"),
        ("failed<5%", "'failed<5%' is not a rule"),
        ("failed>x", "'failed>x' is not a rule"),
        ("failed>nan%", "'failed>nan%' is not a rule"),
        ("failed>101%", "a percentage up to 100"),
        ("failed>1.5", "a whole number of devices"),
        ("failed>=0", "is true before anything failed"),
        ("min=5", "at least one rule"),
        ("failed>5%,min=5,min=6", "one min=N"),
        ("failed>5%,min=0", "one min=N"),
        ("succeeded>5%", "unknown class of failures 'succeeded'"),
    ],
)
def test_a_malformed_rule_names_the_token_and_the_classes(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rules(text)
    assert message in caught.value.message
    if "class" in message:
        assert ", ".join(CLASSES) in caught.value.message


def test_the_default_is_a_rule() -> None:
    assert action_of(DEFAULT, 10, failed=1) is RuleAction.GO
    assert action_of(DEFAULT, 10, failed=1, refused=1) is RuleAction.ABORT


counts = st.fixed_dictionaries({outcome: st.integers(0, 30) for outcome in FAILURES})


@given(
    name=st.sampled_from(sorted(CLASSES)),
    limit=st.integers(0, 100),
    sign=st.sampled_from([">", ">="]),
    unit=st.sampled_from(["%", ""]),
    minimum=st.integers(1, 200),
    failed=counts,
    good=st.integers(0, 200),
)
def test_it_goes_on_exactly_where_the_limit_is_kept(
    name: str, limit: int, sign: str, unit: str, minimum: int, failed: dict[Outcome, int], good: int
) -> None:
    if sign == ">=" and limit == 0:
        return
    rules = parse_rules(f"{name}{sign}{limit}{unit},min={minimum}")
    attempted = sum(failed.values()) + good
    tally = Tally(attempted=attempted, failed=failed)
    count = sum(failed[outcome] for outcome in CLASSES[name])
    looked = not unit or attempted >= minimum
    share = Fraction(100 * count, attempted or 1) if unit else Fraction(count)
    fires = looked and (share > limit if sign == ">" else share >= limit)
    assert (rules.judge(tally).action is RuleAction.ABORT) == fires
    # One more failure of the class never makes an abort into a go.
    worst = next(iter(CLASSES[name]))
    more = Tally(attempted=attempted + 1, failed={**failed, worst: failed[worst] + 1})
    if fires:
        assert rules.judge(more).action is RuleAction.ABORT
    if not looked and count:
        assert set(rules.uncovered(tally)) >= {one for one in CLASSES[name] if failed[one]}


@given(text=st.text(max_size=30))
def test_no_text_makes_anything_but_rules_or_a_usage_error(text: str) -> None:
    try:
        rules = parse_rules(text)
    except UsageError:
        return
    assert rules.rules


@pytest.mark.parametrize(
    ("error", "outcome", "uncertain"),
    [
        (Unreachable("pi", "no"), Outcome.UNREACHABLE, False),
        (LinkLost("pi", "cut"), Outcome.UNREACHABLE, True),
        (DeviceTimeout("pi", "late"), Outcome.TIMED_OUT, True),
        (AuthenticationFailed("pi", "no"), Outcome.REFUSED, False),
        (HostKeyMismatch("pi", "no"), Outcome.REFUSED, False),
        (DeviceOutOfSpace("pi", "full"), Outcome.REFUSED, False),
        (DeviceUnsupported("pi", "kind"), Outcome.REFUSED, False),
        (DeviceBusy("pi", "busy"), Outcome.REFUSED, False),
        (HealthCheckFailed("pi", "golden"), Outcome.FAILED, False),
        (AgentProtocolError("pi", "noise"), Outcome.FAILED, False),
        (DeviceError("pi", "hang", code="EQ511"), Outcome.FAILED, False),
        (unknown("device", "pi", (), hint="x"), Outcome.REFUSED, False),
        (EdgeqError("pi", "?"), Outcome.FAILED, False),
    ],
)
def test_each_error_is_one_outcome(error: EdgeqError, outcome: Outcome, uncertain: bool) -> None:
    got = outcome_of(error)
    assert (got.outcome, got.uncertain, got.code) == (outcome, uncertain, error.reported_code)
    assert error.subject in got.reason
