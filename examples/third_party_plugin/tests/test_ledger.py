"""The environment keeps the contract, and the books decide."""

from __future__ import annotations

from envgym_ledger.ledger import Ledger

from envgym import Message, ToolCall
from envgym.testing import EnvironmentContract, Script, play


class TestLedger(EnvironmentContract):
    """Every check of ``envgym check``: solvable, not solved by accident, replayable, safe to abandon."""

    env = "envgym_ledger.ledger:Ledger"


def _transfer(source: str, target: str, amount: int = 1) -> Message:
    arguments = {"source": source, "target": target, "amount": amount}
    call = ToolCall(name="transfer", arguments=arguments, id="call_0")
    return Message(role="assistant", content="", tool_calls=(call,))


def test_a_changed_third_account_sends_the_score_to_zero() -> None:
    env = Ledger()
    task = env.task_list("train")[0]
    _, pay, final = env.gold(task)
    order = pay.tool_calls[0].arguments
    third = next(n for n in task.reference["opening"] if n not in (order["source"], order["target"]))
    for step_back in (False, True):
        env.reset(options={"task": task})
        env.step(pay)
        env.step(_transfer(third, order["source"]))
        if step_back:
            env.step(_transfer(order["source"], third))
        _, reward, terminated, _, info = env.step(final)
        assert terminated
        assert (reward, info["score"].components["others_untouched"]) == (float(step_back), float(step_back))


def test_a_payment_that_is_not_covered_is_answered_and_not_made() -> None:
    played = play(Ledger(), Script(_transfer("Ada", "Ben", 10**6)))
    assert played.turns[1].messages[0].content.startswith("error: ")
    assert "payments" not in played.artifacts
    assert played.reward == 0
