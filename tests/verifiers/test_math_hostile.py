"""Hostile predictions and golds: each is answered within a second, from any thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from envgym.verifiers import Decision, Verdict, verify_math

_HOSTILE = [
    "9^{9^{9^9}}",
    "9^9^9^9",
    "9**9**9**9",
    "10^{10^{10}}",
    "2^{100000}",
    "2^{-100000}",
    "(1/3)^{99999}",
    "1e99999",
    "1e-99999999999999999999",
    "1000000!",
    "((9!)!)!",
    r"\binom{1000000}{500000}",
    r"\sum_{k=1}^{10^{9}} \frac{1}{k}",
    r"\prod_{k=1}^{10^{9}} k",
    r"\int_0^1 e^{e^{e^x}} dx",
    r"\lim_{x\to0}\frac{\sin x}{x}",
    "(" * 10_000,
    "(" * 10_000 + "1" + ")" * 10_000,
    "{" * 10_000 + "}" * 10_000,
    r"\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    r"\boxed{" * 5_000,
    r"\left(" * 200 + "1" + r"\right)" * 200,
    "[" * 40 + "1" + "]" * 40,
    "9" * 100_000,
    "9" * 500,
    "0." + "3" * 400,
    "1," * 250 + "1",
    "1,234" * 100,
    "-" * 500 + "1",
    "2^" * 250 + "2",
    r"\sqrt" * 100 + "2",
    r"\frac" * 100,
    r"\sqrt{" * 30 + "2" + "}" * 30,
    r"\sin(" * 30 + "x" + ")" * 30,
    "1" + "!" * 400,
    "1" + "%" * 400,
    "x" + "'" * 400,
    "|" * 500,
    "1|" * 250,
    "x_" * 250 + "1",
    "1/" * 255 + "1",
    "1/" * 200 + "0",
    "1/0",
    "0/0",
    "0^0",
    r"\infty-\infty",
    r"\frac{0}{0}",
    "(x+y+z+w)^{9999}",
    "(x+y+z+w)^{12}(a+b+c)^{12}",
    "(a+b)(c+d)(u+v)(w+x)(y+z)(p+q)(r+s)(t+k)(m+n)(a+c)(b+d)",
    "7^{9999}*3^{9999}/11^{9999}+1",
    r"\sqrt{" + "9" * 190 + "}",
    r"\sqrt[9999]{" + "9" * 190 + "}",
    r"\ln(" + "9" * 190 + ")",
    r"\sin(9^{9999})",
    "e^{e^{e^{e^{9999}}}}",
    "x^{x^{x^{x^{x^x}}}}",
    r"\lfloor 9^{9999}/7\rfloor",
    ",".join(rf"\sqrt{{{i}+\sqrt2}}" for i in range(25)),
    r"\{" + ",".join(f"x^{i}" for i in range(100)) + r"\}",
    r"\cup".join(["(1,2)"] * 70),
    "1<" * 200 + "2",
    "=" * 300,
    r"\pm" * 200 + "1",
    r"\begin{pmatrix}" * 30,
    r"\begin{pmatrix}" + "&" * 300 + r"\end{pmatrix}",
    "\\" * 500,
    r"\left" * 100,
    r"\text{" * 100,
    "$" * 500,
    "\x00",
    "1\x00",
    "\ud800",
    "\u202e13",
    "2\u200b1",
    "٣٤",
    "¹²³⁴" * 100,
    "ⅷ",
    "𝟙𝟚",
    "а",  # Cyrillic
    "\n" * 10_000,
    "<think>" * 5_000,
    "<answer>" * 5_000,
    "None",
    "NaN",
    "inf",
    "__import__('os').system('true')",
    "(lambda: 1)()",
    "[x for x in (1).__class__.__base__.__subclasses__()]",
    "%s%n%d",
    "{0.__class__}",
]
_GOLDS = ["12", r"1+\sqrt{2}", "x^2+1", r"\{1,2\}", r"(1,2)"]
_LIMIT = 1.0


@pytest.fixture(scope="module", autouse=True)
def _warm_worker() -> None:
    """Start a worker first: starting one is not part of an answer's time."""
    assert verify_math(r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}").correct
    assert verify_math("1", r"\int_0^1 2x\,dx", timeout=5.0).correct


def _verdicts() -> Iterator[tuple[str, str, Verdict, float]]:
    for text in _HOSTILE:
        for gold in _GOLDS:
            start = time.perf_counter()
            verdict = verify_math(text, gold)
            yield text, gold, verdict, time.perf_counter() - start


def test_there_are_enough_hostile_inputs() -> None:
    """Sixty at least, none of them twice."""
    assert len(set(_HOSTILE)) == len(_HOSTILE) >= 60


def test_hostile_predictions_are_answered_in_time_and_never_correct() -> None:
    """On a worker thread, where SIGALRM does not exist: wrong or unreadable, within a second."""
    found: list[tuple[str, str, Verdict, float]] = []
    thread = threading.Thread(target=lambda: found.extend(_verdicts()))
    thread.start()
    thread.join()
    assert len(found) == len(_HOSTILE) * len(_GOLDS)
    late = [(text[:60], gold, seconds) for text, gold, _, seconds in found if seconds > _LIMIT]
    assert late == []
    odd = [(t[:60], g, v) for t, g, v, _ in found if v.verdict not in (Decision.INCORRECT, Decision.UNPARSEABLE)]
    assert odd == []


def test_hostile_golds_are_answered_in_time() -> None:
    """A broken reference is a gold error, never a wrong answer of the model, and no hang."""
    for text in _HOSTILE:
        start = time.perf_counter()
        verdict = verify_math("12", text, timeout=0.3)
        assert time.perf_counter() - start < _LIMIT, text[:60]
        assert not verdict.correct


async def test_hostile_predictions_from_asyncio() -> None:
    """Through asyncio.to_thread, with the event loop free the whole time."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticker = asyncio.create_task(tick())
    batch = [asyncio.to_thread(verify_math, text, r"1+\sqrt{2}") for text in _HOSTILE]
    verdicts = await asyncio.gather(*batch)
    ticker.cancel()
    assert all(not verdict.correct and verdict.decided for verdict in verdicts)
    assert ticks > 3


def test_a_slow_exotic_answer_is_a_timeout_not_a_zero() -> None:
    """Where the gold itself needs computer algebra, a hang ends in a timeout that counts as missing data."""
    verdict = verify_math(r"\int_0^1 e^{\cos x^3} dx", r"\int_0^1 e^{\sin x^3} dx", timeout=0.02)
    assert (verdict.verdict, verdict.decided) == (Decision.TIMEOUT, False)
    assert verify_math("55", r"\sum_{k=1}^{10}k", timeout=5.0).correct
