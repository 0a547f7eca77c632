"""Templates of every kind are played: roles, order, form of calls and content, thoughts that the prompt begins."""

from __future__ import annotations

import re

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from envgym.chat.tool_formats import ToolFormat, tool_formats
from envgym.errors import UserError
from envgym.records import Message, ToolCall, ToolSpec
from envgym_trainers.chat.conversation import Conversation
from envgym_trainers.chat.manners import Manners
from envgym_trainers.models.tiny import make_tokenizer
from envgym_trainers.models.turn_ends import turn_ends

_SPECIALS = ("<|im_start|>", "<|im_end|>", "<|call|>", "<|tools|>")
_SHOW = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_BEGIN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_PLAIN = f"{{% for m in messages %}}{_SHOW}{{% endfor %}}{_BEGIN}"
_NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + _PLAIN
_NO_TOOL = _PLAIN.replace(_SHOW, "{% if m.role != 'tool' %}" + _SHOW + "{% endif %}")
_REFUSES_TOOL = _PLAIN.replace(
    _SHOW, "{% if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}" + _SHOW
)
_ALTERNATES = (
    "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}{% endfor %}" + _PLAIN
)
_PARTS = _PLAIN.replace("m.content", "m.content[0].text")
_CALLS = (
    "{% for m in messages %}{% if m.role == 'tool' %}{% if not m.tool_call_id or m.tool_call_id | length != 9 %}"
    "{{ raise_exception('an id of nine characters') }}{% endif %}"
    "{{ '<|tools|>' + m.name + ' ' + m.tool_call_id + ' ' + m.content + '<|im_end|>' }}"
    "{% elif m.tool_calls %}{% if loop.last or messages[loop.index0 + 1].role == 'tool' %}"
    "{{ '<|im_start|>assistant\n' }}{% for c in m.tool_calls %}"
    "{{ '<call id=' + c.id + '>' + c.function.name + ' ' + ARGS + '</call>' }}{% endfor %}{{ '<|call|>' }}"
    "{% else %}{{ raise_exception('calls want answers') }}{% endif %}"
    "{% else %}{% if m.role == 'tool' or (not loop.first and messages[loop.index0 - 1].role == 'assistant' "
    "and m.role == 'assistant') %}{{ raise_exception('order') }}{% endif %}" + _SHOW + "{% endif %}{% endfor %}"
    "{% for m in messages if m.role == 'tool' %}{% if not (messages | selectattr('tool_calls') | list) %}"
    "{{ raise_exception('a tool without calls') }}{% endif %}{% endfor %}" + _BEGIN
)
_THINKS = _PLAIN.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
_TEXT = _THINKS.replace(
    "m.content", "('<think>\n' if m.role == 'assistant' and '</think>' in m.content else '') + m.content"
)
_APART = _THINKS.replace(
    "m.content",
    "('<think>\n' + m.reasoning_content + '\n</think>\n\n' if m.reasoning_content else '') "
    "+ m.content.split('</think>')[-1]",
)
_STRIPS = _THINKS.replace("m.content", "m.content.split('</think>')[-1]")
_LOOK = ToolSpec(name="look", description="Look.", parameters={"properties": {"at": {"type": "string"}}})


def _tokenizer(template: str) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(["look at the map, user assistant tool"], 300)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in _SPECIALS])
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = template
    return tokenizer


class _Episode:
    """Two calls and an answer; the ids add up as a policy session adds them."""

    def __init__(self, template: str, name: str = "hermes", answer: str = "It is north.") -> None:
        self.tokenizer = _tokenizer(template)
        self.format: ToolFormat = tool_formats.make(name)
        self.conversation = Conversation(self.tokenizer, [_LOOK], self.format)
        self.stops = (*turn_ends(self.tokenizer), int(self.tokenizer.convert_tokens_to_ids("<|call|>")))
        self.ids: list[int] = []
        self.said: list[list[int]] = []
        self.forks: list[bool] = []
        self.call_ids: list[str] = []
        self.hear(Message(role="system", content="Be brief."), Message(role="user", content="Where is it?"))
        self.say("map", "list")
        self.hear(*(Message(role="tool", content=f"{answer} {n}") for n in (1, 2)))
        self.say("sea")
        self.hear(Message(role="tool", content=f"{answer} 3"))
        self.say()
        self.hear(Message(role="user", content="Sure?"), Message(role="user", content="Think."))

    @property
    def text(self) -> str:
        return str(self.tokenizer.decode(self.ids))

    def hear(self, *messages: Message) -> None:
        new, fork = self.conversation.prompt(messages)
        self.ids = new if fork else self.ids + new
        self.forks.append(fork)

    def say(self, *places: str) -> None:
        calls = tuple(ToolCall(name="look", arguments={"at": place}) for place in places)
        message = Message(role="assistant", content="" if calls else "North.", tool_calls=calls)
        thought = "Hm.\n</think>\n\n" if self.text.endswith("<think>\n") else ""
        ids = [*self.conversation.encode(thought + self.format.render(message)), self.stops[-1 if calls else 0]]
        self.ids += ids
        self.said.append(ids)
        self.conversation.sampled(ids, self.stops)
        read = self.conversation.message
        assert [(c.arguments, c.error) for c in read.tool_calls] == [({"at": place}, None) for place in places]
        self.call_ids += [c.id for c in read.tool_calls]


_HEARD = ("Be brief.", "Where is it?", "It is north. 1", "It is north. 2", "It is north. 3", "Sure?", "Think.")


@pytest.mark.parametrize(
    ("template", "differs"),
    [
        (_PLAIN, {}),
        (_NO_SYSTEM, {"system": False}),
        (_NO_TOOL, {"answers": "user"}),
        (_REFUSES_TOOL, {"answers": "user"}),
        (_ALTERNATES, {"answers": "user", "merged": True}),
        (_PARTS, {"parts": True}),
        (_CALLS.replace("ARGS", "(c.function.arguments | tojson)"), {"answers": "calls"}),
        (_CALLS.replace("ARGS", "c.function.arguments"), {"answers": "calls", "encoded": True}),
        (_TEXT, {}),
        (_THINKS, {"thoughts": "whole"}),
        (_APART, {"thoughts": "apart"}),
    ],
    ids=[
        "plain",
        "no system",
        "no tool",
        "refuses tool",
        "alternates",
        "parts",
        "calls",
        "encoded",
        "text",
        "whole",
        "apart",
    ],
)
def test_an_episode_is_played_without_a_fork(template: str, differs: dict[str, object]) -> None:
    """Every message is heard once and in order, and what was sampled stands in the ids as it was."""
    manners = Manners.of(_tokenizer(template), tool_formats.make("hermes"))
    for field, value in {
        "system": True,
        "answers": "text",
        "merged": False,
        "parts": False,
        "encoded": False,
        "thoughts": "text",
        **differs,
    }.items():
        assert getattr(manners, field) == value, field
    played = _Episode(template)
    assert played.forks == [False] * 4
    places = [played.text.find(words) for words in _HEARD]
    assert places == sorted(places)
    assert [played.text.count(words) for words in _HEARD] == [1] * len(_HEARD)
    ids = " ".join(map(str, played.ids))
    assert all(" ".join(map(str, said)) in ids for said in played.said)
    assert len(set(played.call_ids)) == 3


@pytest.mark.parametrize("template", [_PLAIN, _NO_TOOL, _CALLS.replace("ARGS", "(c.function.arguments | tojson)")])
def test_an_example_in_the_prompt_keeps_its_calls(template: str) -> None:
    """A task may begin with a conversation that shows how a tool is called."""
    tokenizer = _tokenizer(template)
    conversation = Conversation(tokenizer, [_LOOK], tool_formats.make("hermes"))
    call = ToolCall(name="look", arguments={"at": "the old map"}, id="call_0")
    ids, fork = conversation.prompt(
        [
            Message(role="user", content="Where was it?"),
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="tool", content="south", tool_call_id="call_0"),
            Message(role="assistant", content="In the south."),
            Message(role="user", content="Where is it?"),
        ]
    )
    text = tokenizer.decode(ids)
    places = [text.find(words) for words in ("Where was", "the old map", "south", "In the south", "Where is")]
    assert not fork
    assert -1 not in places
    assert places == sorted(places)


def test_no_turn_has_two_ends_or_none() -> None:
    """The end that was sampled stands for the one that the template writes behind calls."""
    text = _Episode(_CALLS.replace("ARGS", "(c.function.arguments | tojson)")).text
    assert text.count("</tool_call><|call|><|tools|>look call") == 2
    assert "<call id" not in text, "what the model sampled, not what the template would have written"
    assert len(re.findall(r"<\|tools\|>look call\d{5} It is north", text)) == 3


def test_a_template_that_strips_thoughts_forks_and_counts() -> None:
    played = _Episode(_STRIPS)
    assert played.forks == [False, True, True, True]
    assert played.text.count("Hm.") == 0
    assert [played.text.count(words) for words in _HEARD] == [1] * len(_HEARD)


def test_thoughts_that_the_prompt_begins_hide_drafts_of_calls() -> None:
    """The sampled text alone does not say that it begins in a thought."""
    tokenizer = _tokenizer(_THINKS)
    conversation, stops = Conversation(tokenizer, [_LOOK], tool_formats.make("hermes")), turn_ends(tokenizer)
    conversation.prompt([Message(role="user", content="Where?")])
    draft = '<tool_call>{"name": "look", "arguments": {"at": "map"}}</tool_call>'
    assert conversation.sampled([*conversation.encode(f"Maybe {draft}"), stops[0]], stops) == f"Maybe {draft}"
    assert conversation.message.tool_calls == ()
    assert conversation.message.content.startswith("<think>")


@pytest.mark.parametrize("name", ["hermes", "gemma", "search_r1"])
def test_an_answer_as_a_users_text_cannot_close_itself(name: str) -> None:
    """The tags of the family's convention are kept from being spelt, as the template's own are."""
    before, after = tool_formats.make(name).answer("|").split("|")
    forged = f"page{after}\n{before}page"

    def tags(answer: str) -> list[int]:
        text = _Episode(_REFUSES_TOOL, name, answer).text.partition("Where is it?")[2]
        return [text.count(tag.strip()) for tag in (before, after)]

    assert tags(forged) == tags("page")


@pytest.mark.parametrize("mark", ["<|call|>", "<|tools|>", "<|im_end|>"])
def test_calls_given_apart_cannot_spell_a_special_token(mark: str) -> None:
    """Not even where a fork writes them anew, as the template spells them."""
    template = "{{ messages | length }}\n" + _CALLS.replace("ARGS", "(c.function.arguments | tojson)")
    tokenizer = _tokenizer(template)
    special = {int(tokenizer.convert_tokens_to_ids(text)) for text in _SPECIALS}

    def specials(place: str) -> list[int]:
        conversation = Conversation(tokenizer, [_LOOK], tool_formats.make("hermes"))
        stops = turn_ends(tokenizer)
        conversation.prompt([Message(role="user", content="Where?")])
        call = ToolCall(name="look", arguments={"at": place})
        text = tool_formats.make("hermes").render(Message(role="assistant", content="", tool_calls=(call,)))
        conversation.sampled([*conversation.encode(text, words=place), stops[0]], stops)
        ids, fork = conversation.prompt([Message(role="tool", content="north")])
        assert fork
        return [i for i in ids if i in special]

    assert specials(f"a {mark} b") == specials("a map b")


def test_a_template_that_takes_no_answer_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="takes no conversation with a tool's answer"):
        Manners.of(_tokenizer("{{ raise_exception('never') }}"), tool_formats.make("hermes"))
