"""Pay from one account to another; what the books say at the end decides, not what the policy says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import ClassVar

import pydantic

from envgym import (
    ChatEnv,
    Message,
    ProceduralTasks,
    Reward,
    Rubric,
    Score,
    Split,
    Task,
    ToolCall,
    ToolInputError,
    Trajectory,
    tool,
)
from envgym.tasks.procedural import stable_id

__all__ = ["Ledger"]

_NAMES = ("Ada", "Ben", "Cem", "Dora", "Emil", "Fay")
_SYSTEM = Message(role="system", content="Do what is asked with the tools, then say that it is done.")


class _Order(pydantic.BaseModel):
    """What a task hides: the books before, and the payment that is right."""

    opening: dict[str, int]
    payer: str
    payee: str
    amount: int


class _Transfer(pydantic.BaseModel):
    """One payment that was made."""

    source: str
    target: str
    amount: int


class Ledger(ChatEnv):
    """Pay an amount, or what is there if it is less. A third account that changes sends the score to 0.

    Payments are kept in the trajectory's artifacts, so that a stored trajectory can be scored again.
    """

    class Config(ChatEnv.Config):
        """Settings of ``Ledger``."""

        people: int = pydantic.Field(default=3, ge=2, le=len(_NAMES), description="accounts in the books")

    config: Config
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def tasks(self, split: Split) -> Sequence[Task]:
        """Orders made on demand."""
        return ProceduralTasks(self.make_task, split, self.config.size, self.config.task_seed)

    def make_task(self, rng: random.Random, split: Split) -> Task:
        """Draw an order and the books that it meets."""
        names = rng.sample(_NAMES, self.config.people)
        opening = {name: rng.randint(1, 99) for name in names}
        payer, payee, asked = names[0], names[1], rng.randint(1, 99)
        text = f"Pay {asked} from {payer} to {payee}. If {payer} has less, pay all there is."
        order = _Order(opening=opening, payer=payer, payee=payee, amount=min(asked, opening[payer]))
        return Task(
            id=stable_id(text, str(opening)),
            split=split,
            messages=(_SYSTEM, Message(role="user", content=text)),
            reference=order.model_dump(),
        )

    @tool
    async def balance(self, account: str) -> int:
        """Balance of a person's account."""
        return self._find(account)

    @tool(concurrent=False)
    async def transfer(self, source: str, target: str, amount: int) -> str:
        """Move an amount from one person's account to another's."""
        self._find(target)
        if not 0 < amount <= self._find(source):
            raise ToolInputError(f"{source} has {self._find(source)}; an amount must be positive and covered")
        payment = _Transfer(source=source, target=target, amount=amount)
        payments = self.trajectory.artifacts.setdefault("payments", [])
        if isinstance(payments, list):
            payments.append(payment.model_dump())
        return "done"

    def score(self, trajectory: Trajectory) -> Awaitable[Score]:
        """1 where payer and payee end as they should and nobody else was touched."""
        rubric = Rubric(
            Reward(name="paid", function=_paid),
            Reward(name="others_untouched", function=_others_untouched, gate=True),
        )
        return rubric.score(trajectory)

    def gold(self, task: Task) -> Sequence[Message]:
        """Look the balance up, pay, say so."""
        order = _order(task)
        return [
            _call("balance", account=order.payer),
            _call("transfer", source=order.payer, target=order.payee, amount=order.amount),
            Message(role="assistant", content="It is done."),
        ]

    def _find(self, account: str) -> int:
        books = _books(self.trajectory)
        if account not in books:
            raise ToolInputError(f"no account of {account[:40]!r}; there are: {', '.join(books)}")
        return books[account]


def _call(name: str, **arguments: str | int) -> Message:
    call = ToolCall(name=name, arguments=dict(arguments), id="call_0")
    return Message(role="assistant", content="", tool_calls=(call,))


def _order(task: Task) -> _Order:
    return _Order.model_validate(task.reference)


def _books(trajectory: Trajectory) -> Counter[str]:
    """Balances after every payment so far."""
    books = Counter(_order(trajectory.task).opening)
    made = trajectory.artifacts.get("payments", [])
    for payment in map(_Transfer.model_validate, made if isinstance(made, list) else []):
        books[payment.source] -= payment.amount
        books[payment.target] += payment.amount
    return books


def _paid(trajectory: Trajectory) -> float:
    order, books = _order(trajectory.task), _books(trajectory)
    return float(
        books[order.payer] == order.opening[order.payer] - order.amount
        and books[order.payee] == order.opening[order.payee] + order.amount
    )


def _others_untouched(trajectory: Trajectory) -> float:
    order, books = _order(trajectory.task), _books(trajectory)
    others = order.opening.keys() - {order.payer, order.payee}
    return float(all(books[name] == order.opening[name] for name in others))
