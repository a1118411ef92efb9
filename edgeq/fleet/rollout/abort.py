"""Abort rules: how many failures of which class abort a rollout; when in doubt, it pauses."""

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
    """Counts of the devices that were attempted.

    Attributes:
        attempted: devices with a result: failed, succeeded, or deployed and soaking.
        failed: the number of failures by outcome.
    """

    attempted: int
    failed: Mapping[Outcome, int]

    def count(self, outcomes: frozenset[Outcome]) -> int:
        """Return how many devices have one of these outcomes."""
        return sum(self.failed.get(outcome, 0) for outcome in outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, such as `failed>5%`.

    Attributes:
        name: one of `CLASSES`.
        strict: True for `>`, which allows the limit itself; False for `>=`.
        percent: whether the limit is a percentage of the devices attempted so far, or a count.
    """

    name: str
    strict: bool
    limit: Fraction
    percent: bool
    text: str

    def exceeded(self, tally: Tally) -> bool:
        """Compare exactly: `100 * count > limit * attempted`, or `count > limit`."""
        count = tally.count(CLASSES[self.name])
        got, limit = (100 * count, self.limit * tally.attempted) if self.percent else (count, self.limit)
        return got > limit if self.strict else got >= limit

    def sentence(self, tally: Tally) -> str:
        """Return how far the counts are from the limit: `1 of 5 devices failed (20 %, limit 10 %)`."""
        count = tally.count(CLASSES[self.name])
        what = "failed" if self.name == "any" else self.name.replace("_", " ")
        if self.percent:
            share = f"{100 * count / max(tally.attempted, 1):.4g} %, "
            limit = f"{'' if self.strict else 'below '}{float(self.limit):g} %"
        else:
            share, limit = "", str(self.limit if self.strict else self.limit - 1)
        return f"{count} of {tally.attempted} devices {what} ({share}limit {limit})"


class RuleAction(StrEnum):
    """What the rules require."""

    GO = "go"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVerdict:
    """An action with the sentence that explains it."""

    action: RuleAction
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a rollout.

    Attributes:
        minimum: percentages are evaluated only after this many devices were attempted.
    """

    rules: tuple[Rule, ...]
    minimum: int
    text: str

    def judge(self, tally: Tally) -> RuleVerdict:
        """Return whether to go on; an inconsistent tally pauses, since no rule can be evaluated on it."""
        if not _is_consistent(tally):
            reason = f"the abort rules cannot be evaluated: {dict(tally.failed)} of {tally.attempted} devices"
            return RuleVerdict(action=RuleAction.PAUSE, reason=reason)
        for rule in self.rules:
            if self._counts(rule, tally) and rule.exceeded(tally):
                return RuleVerdict(action=RuleAction.ABORT, reason=rule.sentence(tally))
        return RuleVerdict(action=RuleAction.GO)

    def uncovered(self, tally: Tally) -> tuple[Outcome, ...]:
        """Return the outcomes of failures that no evaluated rule covers."""
        covered = frozenset[Outcome]().union(
            *(CLASSES[rule.name] for rule in self.rules if self._counts(rule, tally))
        )
        return tuple(
            outcome for outcome in FAILURES if tally.failed.get(outcome, 0) and outcome not in covered
        )

    def _counts(self, rule: Rule, tally: Tally) -> bool:
        return not rule.percent or (tally.attempted >= self.minimum and tally.attempted > 0)


def parse_rules(text: str) -> Rules:
    """Parse rules such as `failed>5%,silent>10%,min=5`.

    Raises:
        UsageError: a token is not a rule, or its class is unknown; the message has the token and the classes.
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
            f"{token[:80]!r} is not a rule",
            expected=f"CLASS>N% or CLASS>=N with a class of {', '.join(CLASSES)}; or min=N",
            hint=_HINT,
        )
    name, sign, number, percent = match.groups()
    if name not in CLASSES:
        near = difflib.get_close_matches(name, CLASSES, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            "--abort",
            f"{token[:80]!r}: unknown class of failures {name!r}{meant}",
            expected=f"one of {', '.join(CLASSES)}",
            hint=_HINT,
        )
    limit, strict = Fraction(number), sign == ">"
    if percent and limit > 100:
        raise UsageError("--abort", f"{token!r}", expected="a percentage up to 100", hint=_HINT)
    if not percent and limit.denominator != 1:
        raise UsageError(
            "--abort", f"{token!r}", expected="a whole number of devices, or a percentage", hint=_HINT
        )
    if limit == 0 and not strict:
        raise UsageError("--abort", f"{token!r} is true before anything failed", expected=">0", hint=_HINT)
    return Rule(name=name, strict=strict, limit=limit, percent=bool(percent), text=token)


def _is_consistent(tally: Tally) -> bool:
    counts = tally.failed.values()
    return tally.attempted >= 0 and min(counts, default=0) >= 0 and sum(counts) <= tally.attempted
