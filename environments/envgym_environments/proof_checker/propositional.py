"""Propositional problems: a fact, and rules that lead from one literal to the next."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator

from envgym_environments.proof_checker.problem import Draft, ProofProblem, negated

__all__ = ["propositional"]


class _Chain:
    """The last literal that is known, and the names not used yet."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.draft = Draft()
        letters = rng.sample(string.ascii_lowercase, 26)
        self._names: Iterator[str] = iter([*letters, *(f"{letter}1" for letter in letters)])
        self.known = self.draft.premise(self.literal())

    def atom(self) -> str:
        return next(self._names)

    def literal(self) -> str:
        return self.rng.choice(("", "", "~")) + self.atom()

    def conclude(self, literal: str, *uses: str) -> None:
        self.known = self.draft.step(literal, *uses)


def _detach(chain: _Chain) -> None:
    then = chain.literal()
    chain.conclude(then, chain.known, chain.draft.premise(f"{chain.known} -> {then}"))


def _contrapose(chain: _Chain) -> None:
    unless = chain.literal()
    rule = chain.draft.premise(f"{unless} -> {negated(chain.known)}")
    chain.conclude(negated(unless), chain.known, rule)


def _exclude(chain: _Chain) -> None:
    other = chain.literal()
    sides = chain.rng.sample((negated(chain.known), other), 2)
    chain.conclude(other, chain.known, chain.draft.premise(" | ".join(sides)))


def _join(chain: _Chain) -> None:
    fact, then = chain.draft.premise(chain.literal()), chain.literal()
    both = chain.draft.step(f"{chain.known} & {fact}", chain.known, fact)
    chain.conclude(then, both, chain.draft.premise(f"{both} -> {then}"))


def _equate(chain: _Chain) -> None:
    same = chain.literal()
    sides = chain.rng.sample((chain.known, same), 2)
    chain.conclude(same, chain.known, chain.draft.premise(" <-> ".join(sides)))


def _split(chain: _Chain) -> None:
    one, other, then = chain.atom(), chain.atom(), chain.literal()
    draft = chain.draft
    either = draft.step(f"{one} | {other}", chain.known, draft.premise(f"{chain.known} -> {one} | {other}"))
    left = draft.step(f"{then} | {other}", either, draft.premise(f"{one} -> {then}"))
    chain.conclude(then, left, draft.premise(f"{other} -> {then}"))


_RULES: tuple[Callable[[_Chain], None], ...] = (_detach, _contrapose, _exclude, _join, _equate, _split)
"""Rules in the order in which levels introduce them."""


def propositional(rng: random.Random, level: int) -> ProofProblem:
    """Make a proof by ``level + 1`` rules, beside ``level`` premises that lead nowhere."""
    chain = _Chain(rng)
    for _ in range(level + 1):
        rng.choice(_RULES[: level + 1])(chain)
    for _ in range(level):
        aside = rng.choice((chain.known, chain.literal()))
        chain.draft.premise(rng.choice((f"{chain.literal()} -> {aside}", f"{aside} | {chain.literal()}")))
    return chain.draft.problem(rng)
