"""Where the final answer of a message is."""

from __future__ import annotations

import re
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.math_equivalence import boxes
from envgym.verifiers import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12}", "12"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\{1,2}", r"\{1,2"),
        (r"\boxed{\left\{1\right\}} and more", r"\left\{1\right\}"),
        (r"\boxed{7} no, \boxed{12}", "12"),
        (r"\boxed{12} no, \boxed{7", None),
        (r"\fbox{12}", "12"),
        (r"\boxed{}", None),
        ("<answer> 12 </answer>", "12"),
        (r"<answer>It is \boxed{12}</answer>", "12"),
        (r"\boxed{7} <answer>12</answer>", "12"),
        (r"<answer>12</answer> \boxed{7}", "7"),
        ("<answer>12", None),
        ("18 - 2 = 16\n#### 16", "16"),
        ("####", None),
        ("12", "12"),
        (" 12\n", "12"),
        ("12\n13", None),
        ("", None),
        ("<think>12", None),
        ("<think>12</think>", None),
        ("<think>\\boxed{11}</think>\\boxed{12}", "12"),
        ("\\boxed{11}</think>\\boxed{12}", "12"),
        ("\\boxed{11}</think>no answer\nat all", None),
        ("<think>a</think>12<think>b", None),
        (r"**\boxed 7**", "7"),
        (r"\boxed 7**2", r"\boxed 7**2"),
    ],
)
def test_the_last_fence_after_thinking_wins(text: str, answer: str | None) -> None:
    """Reasoning does not count, the last fence does, and an open fence is not an answer."""
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "<answer>", "<think>", "</think>", "{", "}", "####", "\\", "<answer></answer>"]
)
def test_time_is_linear(piece: str) -> None:
    """A megabyte of fences is read in well under a second."""
    start = time.perf_counter()
    extract_answer(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - start < 1.0


PIECES = (
    *("\\boxed{", "\\boxed", "\\fbox{", "}", "{", "7", "a b", " ", "\\", "\\\\", "$", ", ", "and ", "\n", "*"),
    "\\frac{1}{2}",
)


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_a_plain_box_is_read_as_the_reader_of_all_boxes_reads_it(text: str) -> None:
    with mock.patch.object(boxes, "_PLAIN", re.compile("(?!)")):
        expected = boxes.last_box(text)
    assert boxes.last_box(text) == expected
