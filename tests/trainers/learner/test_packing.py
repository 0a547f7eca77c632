"""A micro-batch as a tree of tokens."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from envgym_trainers.batch import Batch
from envgym_trainers.learner.packing import pack

BatchOf = Callable[[list[list[int]]], Batch]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_distinct_prefix_has_one_place(batch_of: BatchOf, data: st.DataObject) -> None:
    """Rows read back are the samples; equal openings share places, and positions count from the start."""
    token = st.integers(0, 2)
    shared = data.draw(st.lists(token, min_size=4, max_size=30))
    tails = data.draw(st.lists(st.lists(token, max_size=12), min_size=3, max_size=9))
    batch = batch_of([shared + tail for tail in tails])
    start = data.draw(st.integers(0, 3))
    packed = pack(batch, start)
    if packed is None:
        return
    seen: dict[tuple[int, ...], int] = {}
    for b, tail in enumerate(tails):
        row = (shared + tail)[start:]
        where = packed.where[b, : len(row)]
        assert packed.ids[0, where].tolist() == row
        assert packed.positions[0, where].tolist() == list(range(start, start + len(row)))
        for t, place in enumerate(where.tolist()):
            assert seen.setdefault(tuple(row[: t + 1]), place) == place
    assert sorted(seen.values()) == list(range(packed.ids.shape[1])), "one place for each distinct prefix"
    for place, source in enumerate(packed.sources.tolist()):
        assert packed.where.flatten()[source] == place
        assert batch.attention[:, start:].flatten()[source]


def test_a_shared_prompt_is_run_once(batch_of: BatchOf) -> None:
    packed = pack(batch_of([[5] * 50 + [1, i] for i in range(8)]))
    assert packed is not None
    assert packed.ids.shape == (1, 59), "fifty, the 1 they also share, and eight tokens of their own"


def test_samples_that_share_nothing_are_left_alone(batch_of: BatchOf) -> None:
    assert pack(batch_of([[i, i, i] for i in range(8)])) is None


def test_padding_is_not_run(batch_of: BatchOf) -> None:
    """Where lengths differ, packing pays without any shared token."""
    packed = pack(batch_of([[i, *range(length)] for i, length in enumerate([14, 2, 3])]))
    assert packed is not None
    assert packed.ids.shape == (1, 22)
