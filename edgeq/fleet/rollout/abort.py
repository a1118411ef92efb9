"""Abort rules: which failures, how many of them, after how many devices; in doubt the rollout stops."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from edgeq.errors import UsageError
from edgeq.fleet.rollout.outcomes import CLASSES, FAILURES, Outcome

DEFAULT = "any>10%,min=5"
_HINT = "for example --abort 'failed>5%,silent>10%,min=5' or --abort 'rolled_back>=1'"
_RULE = re.compile(r"([A-Za-z_-]+)\s*(>=|>)\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(%?)")
_MIN = re.compile(r"min\s*=\s*([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is known of the devices that were attempted.

    Attributes:
        attempted: devices with a result: failed in some way, succeeded, or deployed and soaking.
        failed: how many of them by outcome.
    """

    attempted: int
    failed: Mapping[Outcome, int]

    def count(self, outcomes: frozenset[Outcome]) -> int:
        """Return how many have one of these outcomes."""
        return sum(self.failed.get(outcome, 0) for outcome in outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, such as `failed>5%`.

    Attributes:
        name: one of `CLASSES`.
        strict: `>`: the limit itself is still allowed; `>=`: it is not.
        percent: whether the limit is a share of the devices attempted so far, or a count.
    """

    name: str
    strict: bool
    limit: Fraction
    percent: bool
    text: str

    def exceeded(self, tally: Tally) -> bool:
        """Compare, in whole numbers: `100 * count > limit * attempted`, or `count > limit`."""
        count = tally.count(CLASSES[self.name])
        got, limit = (100 * count, self.limit * tally.attempted) if self.percent else (count, self.limit)
        return got > limit if self.strict else got >= limit


class Finding(StrEnum):
    """What the rules say."""

    GO = "go"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A finding with the sentence that explains it."""

    finding: Finding
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a rollout.

    Attributes:
        minimum: percentages are looked at only when this many devices were attempted.
    """

    rules: tuple[Rule, ...]
    minimum: int
    text: str

    def judge(self, tally: Tally) -> Verdict:
        """Say whether to go on; a tally that does not add up pauses, since no rule can be trusted with it."""
        if not _adds_up(tally):
            reason = f"the abort rules cannot be evaluated: {dict(tally.failed)} of {tally.attempted} devices"
            return Verdict(finding=Finding.PAUSE, reason=reason)
        for rule in self.rules:
            if self._counts(rule, tally) and rule.exceeded(tally):
                count = tally.count(CLASSES[rule.name])
                reason = f"{rule.text}: {count} of {tally.attempted} devices {rule.name}"
                return Verdict(finding=Finding.ABORT, reason=reason)
        return Verdict(finding=Finding.GO)

    def uncovered(self, tally: Tally) -> tuple[Outcome, ...]:
        """Return the failures that happened and that no rule, looked at, has allowed."""
        looked = frozenset[Outcome]().union(
            *(CLASSES[rule.name] for rule in self.rules if self._counts(rule, tally))
        )
        return tuple(
            outcome for outcome in FAILURES if tally.failed.get(outcome, 0) and outcome not in looked
        )

    def _counts(self, rule: Rule, tally: Tally) -> bool:
        return not rule.percent or (tally.attempted >= self.minimum and tally.attempted > 0)


def parse_rules(text: str) -> Rules:
    """Return the rules of a text such as `failed>5%,silent>10%,min=5`.

    Raises:
        UsageError: a token is no rule, or names no known class; the message has the token and the classes.
    """
    rules: list[Rule] = []
    minimum: int | None = None
    for token in (part.strip() for part in text.split(",")):
        smallest = _MIN.fullmatch(token)
        if smallest is None:
            rules.append(_parse(token))
        elif minimum is None and int(smallest.group(1)) > 0:
            minimum = int(smallest.group(1))
        else:
            raise UsageError("--abort", f"{token!r}", expected="one min=N, N from 1", hint=_HINT)
    if not rules:
        raise UsageError("--abort", expected="at least one rule", got=repr(text[:80]), hint=_HINT)
    return Rules(rules=tuple(rules), minimum=minimum or 1, text=text)


def _parse(token: str) -> Rule:
    match = _RULE.fullmatch(token)
    if match is None:
        raise UsageError(
            "--abort",
            f"{token[:80]!r} is no rule",
            expected=f"CLASS>N% or CLASS>=N with a class of {', '.join(CLASSES)}; or min=N",
            hint=_HINT,
        )
    name, sign, number, percent = match.groups()
    if name not in CLASSES:
        near = difflib.get_close_matches(name, CLASSES, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            "--abort",
            f"{token[:80]!r}: {name!r} is no class of failures{meant}",
            expected=f"one of {', '.join(CLASSES)}",
            hint=_HINT,
        )
    limit, strict = Fraction(number), sign == ">"
    if percent and limit > 100:
        raise UsageError("--abort", f"{token!r}", expected="a percentage up to 100", hint=_HINT)
    if not percent and limit.denominator != 1:
        raise UsageError("--abort", f"{token!r}", expected="a whole number of devices, or a %", hint=_HINT)
    if limit == 0 and not strict:
        raise UsageError("--abort", f"{token!r} holds before anything failed", expected=">0", hint=_HINT)
    return Rule(name=name, strict=strict, limit=limit, percent=bool(percent), text=token)


def _adds_up(tally: Tally) -> bool:
    counts = tally.failed.values()
    return tally.attempted >= 0 and min(counts, default=0) >= 0 and sum(counts) <= tally.attempted
