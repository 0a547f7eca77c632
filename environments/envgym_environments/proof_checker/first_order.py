"""First-order problems: rules about all things carry a fact from one thing to the next."""

from __future__ import annotations

import random
from collections.abc import Callable

from envgym_environments.proof_checker.problem import Draft, ProofProblem, negated

__all__ = ["first_order"]

_KINDS = (
    *("amber", "bitter", "brave", "calm", "clever", "cold", "dry", "early", "fast", "gentle", "grey", "heavy"),
    *("honest", "loud", "mild", "narrow", "old", "proud", "quiet", "round", "sharp", "small", "warm", "young"),
)
_RELATIONS = ("calls", "follows", "guides", "hears", "helps", "hires", "knows", "leads", "meets", "pays", "sees")
_THINGS = ("ada", "bo", "cleo", "dan", "eve", "finn", "gus", "hal", "ida", "jon", "kim", "lou", "mia", "ned")


class _Chain:
    """The last kind that is known, its thing, and the names not used yet."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.draft = Draft()
        self._kinds = iter(rng.sample(_KINDS, len(_KINDS)))
        self._relations = iter(rng.sample(_RELATIONS, len(_RELATIONS)))
        self._things = iter(rng.sample(_THINGS, len(_THINGS)))
        self.kind, self.thing = self.literal(), self.another()
        self.draft.premise(self.known)

    @property
    def known(self) -> str:
        return f"{self.kind}({self.thing})"

    def literal(self) -> str:
        """Draw a kind, or its opposite."""
        return self.rng.choice(("", "", "~")) + next(self._kinds)

    def relation(self) -> str:
        return next(self._relations)

    def another(self) -> str:
        return next(self._things)

    def conclude(self, kind: str, thing: str, *uses: str) -> None:
        self.kind, self.thing = kind, thing
        self.draft.step(self.known, *uses)


def _apply(chain: _Chain) -> None:
    then = chain.literal()
    rule = chain.draft.premise(f"forall x. {chain.kind}(x) -> {then}(x)")
    chain.conclude(then, chain.thing, chain.known, rule)


def _contrapose(chain: _Chain) -> None:
    unless = chain.literal()
    rule = chain.draft.premise(f"forall x. {unless}(x) -> {negated(chain.kind)}(x)")
    chain.conclude(negated(unless), chain.thing, chain.known, rule)


def _exclude(chain: _Chain) -> None:
    other = chain.literal()
    sides = chain.rng.sample((f"{negated(chain.kind)}(x)", f"{other}(x)"), 2)
    chain.conclude(other, chain.thing, chain.known, chain.draft.premise(f"forall x. {' | '.join(sides)}"))


def _pass_on(chain: _Chain) -> None:
    relation, to, then, draft = chain.relation(), chain.another(), chain.literal(), chain.draft
    fact = draft.premise(f"{relation}({chain.thing}, {to})")
    both = draft.step(f"{fact} & {chain.known}", fact, chain.known)
    rule = draft.premise(f"forall x y. {relation}(x, y) & {chain.kind}(x) -> {then}(y)")
    chain.conclude(then, to, both, rule)


def _witness(chain: _Chain) -> None:
    relation, of, then, draft = chain.relation(), chain.another(), chain.literal(), chain.draft
    fact = draft.premise(f"{relation}({of}, {chain.thing})")
    both = draft.step(f"{fact} & {chain.known}", fact, chain.known)
    some = draft.step(f"exists y. {relation}({of}, y) & {chain.kind}(y)", both)
    rule = draft.premise(f"forall x. (exists y. {relation}(x, y) & {chain.kind}(y)) -> {then}(x)")
    chain.conclude(then, of, some, rule)


_RULES: tuple[Callable[[_Chain], None], ...] = (_apply, _contrapose, _exclude, _pass_on, _witness)
"""Rules in the order in which levels introduce them."""


def first_order(rng: random.Random, level: int) -> ProofProblem:
    """Make a proof by ``level + 1`` rules, beside ``level`` premises that lead nowhere."""
    chain = _Chain(rng)
    for _ in range(level + 1):
        rng.choice(_RULES[: level + 1])(chain)
    for _ in range(level):
        aside = chain.literal()
        rule = f"forall x. {aside}(x) -> {rng.choice((chain.kind, chain.literal()))}(x)"
        chain.draft.premise(rng.choice((rule, f"{aside}({chain.another()})")))
    return chain.draft.problem(rng)
