"""The spaces are Gymnasium spaces: what they draw they contain, and equal seeds draw the same."""

from __future__ import annotations

import gymnasium
import pytest

from envgym.env.spaces import ActionSpace, ObservationSpace
from envgym.records import Message, Observation, ToolSpec

SCHEMA = {
    "properties": {
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "yes": {"type": "boolean"},
        "mode": {"enum": ["up", "down"], "type": "string"},
        "many": {"type": "array", "items": {"type": "integer"}},
        "any": {},
        "odd": True,
    }
}
TOOL = ToolSpec(name="t", description="", parameters=SCHEMA)


@pytest.mark.parametrize("space", [ActionSpace(), ActionSpace((TOOL,)), ObservationSpace()])
def test_samples_are_contained_and_reproducible(space: gymnasium.Space[object]) -> None:
    space.seed(3)
    first = [space.sample() for _ in range(50)]
    assert all(space.contains(x) for x in first)
    space.seed(3)
    assert [space.sample() for _ in range(50)] == first
    space.seed(4)
    assert [space.sample() for _ in range(50)] != first


def test_random_calls_fit_the_schema() -> None:
    space = ActionSpace((TOOL,), seed=0)
    calls = [call for _ in range(100) for call in space.sample().tool_calls]
    assert calls
    for call in calls:
        arguments = call.arguments
        assert call.name == "t"
        assert arguments.keys() == SCHEMA["properties"].keys()
        assert isinstance(arguments["n"], int)
        assert isinstance(arguments["x"], float)
        assert isinstance(arguments["yes"], bool)
        assert arguments["mode"] in ("up", "down")
        assert all(isinstance(n, int) for n in arguments["many"])


def test_what_is_no_action_is_not_contained() -> None:
    space = ActionSpace(max_chars=5)
    assert space.contains(Message(role="assistant", content="12345"))
    for wrong in ("text", None, Message(role="user", content=""), Message(role="assistant", content="123456")):
        assert not space.contains(wrong)


def test_an_observation_holds_nothing_of_the_policy() -> None:
    space = ObservationSpace()
    assert space.contains(Observation())
    assert not space.contains(Observation(messages=(Message(role="assistant", content=""),)))
    assert not space.contains(())


def test_spaces_compare_by_what_they_hold() -> None:
    assert ActionSpace((TOOL,), seed=1) == ActionSpace((TOOL,), seed=2)
    assert ActionSpace((TOOL,)) != ActionSpace()
    assert ObservationSpace() == ObservationSpace()
    assert ObservationSpace() != ActionSpace()


@pytest.mark.parametrize("space", [ActionSpace(), ObservationSpace()])
def test_masks_are_refused_not_ignored(space: gymnasium.Space[object]) -> None:
    with pytest.raises(ValueError, match="mask"):
        space.sample(mask=1)
    assert not space.is_np_flattenable
