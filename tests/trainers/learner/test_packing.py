"""A micro-batch as a tree of tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym_trainers.batch import Batch
from envgym_trainers.learner.packing import Packed, pack

BatchOf = Callable[[list[list[int]]], Batch]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_distinct_prefix_has_one_place(batch_of: BatchOf, data: st.DataObject) -> None:
    """Rows read back are the samples; equal openings share places, and positions count from the start."""
    token = st.integers(0, 2)
    shared = data.draw(st.lists(token, min_size=4, max_size=30))
    shared = shared * data.draw(st.sampled_from([1, 8, 20]))
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
    for path in seen_by_attention(packed).values():
        assert seen[tuple(packed.ids[0, path].tolist())] == path[-1], (
            "every query sees its sample's tokens, in order"
        )


def seen_by_attention(packed: Packed) -> dict[int, list[int]]:
    """Return by place what its query sees, the last being the place itself."""
    assert packed.rows.sources is not None
    queries = [
        row[: part.ahead + t + 1]
        for part in packed.rows.parts
        for row in part.where.tolist()
        for t in range(len(row) - part.ahead)
    ]
    found = {place: queries[source] for place, source in enumerate(packed.rows.sources.tolist())}
    assert all(path[-1] == place for place, path in found.items())
    return found


@pytest.mark.parametrize("prompts", [[300], [200, 150], [400, 3, 200]])
def test_attention_works_on_a_shared_prompt_once(batch_of: BatchOf, prompts: list[int]) -> None:
    """Its tokens have queries in one row, whatever the group; groups share the row's batch, not the row."""
    packed = pack(
        batch_of([[7, *[g] * length, 1, i, *[5] * i] for g, length in enumerate(prompts) for i in range(4)])
    )
    assert packed is not None
    whole, *forks = packed.rows.parts
    long = [length for length in prompts if length >= 150]
    assert sorted(part.ahead for part in forks) == sorted(length + 2 for length in long)
    assert len(whole.where) == len(long) + 4 * (len(prompts) - len(long)), "a short prompt is not worth a row"
    assert len(seen_by_attention(packed)) == packed.ids.shape[1]


def test_a_sample_that_ends_where_others_go_on(batch_of: BatchOf) -> None:
    packed = pack(batch_of([[7] * 200, [7] * 200 + [1], [7] * 200 + [2, 3], [7] * 200]))
    assert packed is not None
    assert [tuple(part.where.shape) for part in packed.rows.parts] == [(1, 200), (2, 202)]
    assert len(seen_by_attention(packed)) == packed.ids.shape[1] == 203


def test_equal_samples_are_one_row(batch_of: BatchOf) -> None:
    packed = pack(batch_of([[7] * 200] * 3))
    assert packed is not None
    assert [tuple(part.where.shape) for part in packed.rows.parts] == [(1, 200)]


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
