"""Properties of the verdict over generated answers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.verifiers import Decision, verify_math

_RATIONALS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4)


def _latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return f"{value}"
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@st.composite
def _surds(draw: st.DrawFn) -> tuple[Fraction, Fraction, int]:
    """a + b sqrt(n), with b not zero and n no square."""
    radicand = draw(st.sampled_from([2, 3, 5, 6, 7, 10, 12, 18, 50]))
    return draw(_RATIONALS), draw(_RATIONALS.filter(bool)), radicand


def _surd_latex(surd: tuple[Fraction, Fraction, int]) -> str:
    first, second, radicand = surd
    return rf"{_latex(first)}+{_latex(second)}\sqrt{{{radicand}}}".replace("+-", "-")


_SCALARS = st.one_of(
    _RATIONALS.map(_latex),
    _surds().map(_surd_latex),
    st.sampled_from(
        [r"\pi", r"\frac{\pi}{3}", "e^{2}", r"\ln 5", "2i+1", "x^2+1", r"\sqrt{x}", "3x-2y", "7 cm", r"45\%"]
    ),
)
_BRACKETS = st.sampled_from([("(", ")"), ("[", "]"), (r"\{", r"\}"), (r"\langle ", r"\rangle"), ("", "")])


@st.composite
def _answers(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(_SCALARS)
    opener, closer = draw(_BRACKETS)
    items = draw(st.lists(_SCALARS, min_size=2, max_size=4))
    return opener + ", ".join(items) + closer


@st.composite
def _respelt(draw: st.DrawFn, answer: str) -> str:
    """The same answer with other white space, sizing commands, delimiters or final dot."""
    respelt = draw(
        st.sampled_from(
            [
                answer,
                answer.replace("+", " + ").replace("-", r"\,-\,"),
                answer.replace("(", r"\left(").replace(")", r"\right)"),
                answer.replace("[", r"\bigl[").replace("]", r"\bigr]"),
                answer.replace(r"\frac", r"\dfrac").replace(",", r",\;"),
                answer.replace(", ", ","),
            ]
        )
    )
    return draw(st.sampled_from(["{}", " {} ", "${}$", r"\({}\)", "$${}$$", "{}.", r"\,{}\,"])).replace(
        "{}", respelt
    )


@given(st.data(), _answers())
@settings(max_examples=150, deadline=None)
def test_every_answer_equals_itself_in_another_spelling(data: st.DataObject, answer: str) -> None:
    r"""verify(g, g), and invariance to white space, \left, \, , dollar signs and a final dot."""
    spelt = data.draw(_respelt(answer))
    assert verify_math(answer, answer).correct
    assert verify_math(spelt, answer).correct, spelt
    assert verify_math(answer, spelt).correct, spelt
    assert verify_math(rf"text \boxed{{{answer}}}", answer).correct


@given(_answers(), _answers())
@settings(max_examples=150, deadline=None)
def test_symmetry(left: str, right: str) -> None:
    """verify(a, b) equals verify(b, a) for evaluated answers."""
    assert verify_math(left, right).correct is verify_math(right, left).correct


@given(_RATIONALS, _RATIONALS)
@settings(max_examples=200, deadline=None)
def test_rationals_compare_exactly(left: Fraction, right: Fraction) -> None:
    """The verdict is rational equality, in fractions and in decimals."""
    assert verify_math(_latex(left), _latex(right)).correct is (left == right)
    shifted = right / 10**30
    assert verify_math(_latex(left), _latex(left + shifted)).correct is (right == 0)


@given(_surds(), _surds())
@settings(max_examples=150, deadline=None)
def test_surds_compare_exactly(
    left: tuple[Fraction, Fraction, int], right: tuple[Fraction, Fraction, int]
) -> None:
    """a + b sqrt(n): equal when the rational parts and the signed squares of the rest are."""

    def key(surd: tuple[Fraction, Fraction, int]) -> tuple[Fraction, Fraction, bool]:
        return surd[0], surd[1] ** 2 * surd[2], surd[1] > 0

    verdict = verify_math(_surd_latex(left), _surd_latex(right))
    assert verdict.correct is (key(left) == key(right))
    assert verdict.stage in ("string", "algebra")


@given(_RATIONALS.filter(bool), st.sampled_from(["sign", "reciprocal", "plus", "minus", "tenth"]))
@settings(max_examples=150, deadline=None)
def test_mutated_numbers_are_wrong(value: Fraction, mutation: str) -> None:
    """Sign, reciprocal, one more, one less, a tenth: wrong unless the value is the same."""
    mutated = {
        "sign": -value,
        "reciprocal": 1 / value,
        "plus": value + 1,
        "minus": value - 1,
        "tenth": value / 10,
    }[mutation]
    assert verify_math(_latex(mutated), _latex(value)).correct is (mutated == value)


@given(st.lists(_RATIONALS, min_size=2, max_size=5, unique=True), _BRACKETS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_dropped_or_swapped_element_is_wrong(
    values: list[Fraction], brackets: tuple[str, str], data: st.DataObject
) -> None:
    """Dropping an item is wrong everywhere; order counts exactly where it means something."""
    opener, closer = brackets
    items = [_latex(value) for value in values]
    gold = opener + ", ".join(items) + closer
    index = data.draw(st.integers(0, len(items) - 1))
    dropped = items[:index] + items[index + 1 :]
    assert not verify_math(opener + ", ".join(dropped) + closer, gold).correct
    ordered = opener in ("(", "[", r"\langle ")
    assert verify_math(opener + ", ".join(items[::-1]) + closer, gold).correct is not ordered


_COMMANDS = (
    *(r"\frac", r"\sqrt", r"\left", r"\pm", r"\cup", r"\{", r"\}", r"\sin", r"\log", r"\text{", r"\boxed{"),
    *(r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", r"\infty", "cm", " and ", "$"),
)
_HOSTILE_PIECES = st.sampled_from([*"0123456789+-*/^_(){}[]|,;:=<>!%'& xyzeiπ∞√½²°€", *_COMMANDS])


@given(
    st.lists(_HOSTILE_PIECES, max_size=24).map("".join),
    st.sampled_from(["12", r"1+\sqrt2", "(1,2)", "x=3", "yes"]),
)
@settings(max_examples=300, deadline=None)
def test_no_text_raises_and_none_is_slow(text: str, gold: str) -> None:
    """Any sequence of tokens gets a verdict about the prediction; as a gold it is at worst a gold error."""
    verdict = verify_math(text, gold)
    assert verdict.decided
    assert verdict.elapsed < 5.0
    assert verify_math(gold, text).verdict in set(Decision) - {Decision.TIMEOUT, Decision.VERIFIER_ERROR}


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_arbitrary_unicode_gets_a_verdict(text: str, gold: str) -> None:
    """No character makes the verifier raise, and nothing that is empty is correct."""
    verdict = verify_math(text, gold)
    assert verdict.verdict in set(Decision)
    assert not verdict.correct or (text.strip() and gold.strip())


def test_equivalent_labelled_pairs_survive_respelling(
    labelled: Callable[[str], list[dict[str, Any]]],
) -> None:
    """Boxes, dollar signs and white space around the answers of the labelled set change no verdict."""
    for row in labelled("equiv"):
        options = {name: row[name] for name in ("unit", "percent", "rounded") if name in row}
        if any(mark in row["prediction"] for mark in ("boxed", "answer", "think", "####", "fbox")):
            continue
        verdict = verify_math(rf"thus \boxed{{ $ {row['prediction']} $ }}", row["gold"], timeout=10.0, **options)
        assert verdict.correct, (row, verdict)
