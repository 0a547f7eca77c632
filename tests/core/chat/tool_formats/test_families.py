"""Calls as each family's models write them: read, or answered, never dropped; and found from the chat template."""

from __future__ import annotations

import dataclasses
import random
import time
from typing import Any

import pytest

from envgym.chat.tool_formats import MAX_CALLS, ToolFormat, recognise, tool_formats, unique_ids
from envgym.records import Message, ToolCall, ToolSpec, from_json, to_json

_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_ONE, _SEP, _ONE_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_CHANNEL = "<|channel|>commentary to=functions"


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("hermes", '<tool_call>\n{"name": "find", "arguments": {"q": "a b", "n": 3}}\n</tool_call>', ""),
        ("llama3", '{"name": "find", "parameters": {"q": "a b", "n": 3}}', ""),
        ("llama3", '<|python_tag|>{"name": "find", "parameters": {"q": "a b", "n": 3}}<|eom_id|>', ""),
        ("llama3", '<|python_tag|>find.call(q="a b", n=3)', ""),
        ("llama3", 'Sure.\n{"type": "function", "name": "find", "parameters": {"q": "a b", "n": 3}}', "Sure."),
        ("llama3", '[{"name": "find", "parameters": {"q": "a b", "n": 3}}]', ""),
        ("pythonic", "[find(q='a b', n=3)]", ""),
        ("pythonic", '<|python_start|>[find(q="a b", n=3)]<|python_end|>', ""),
        ("pythonic", "I look.\n<|tool_call_start|>[find(q='a b', n=3,)]<|tool_call_end|>", "I look."),
        ("mistral", '[TOOL_CALLS] [{"name": "find", "arguments": {"q": "a b", "n": 3}, "id": "a1b2c3d4e"}]', ""),
        ("mistral", '[TOOL_CALLS]find[ARGS]{"q": "a b", "n": 3}', ""),
        ("mistral", 'Well.[TOOL_CALLS]find[CALL_ID]a1b2c3d4e[ARGS]{"q": "a b", "n": 3}', "Well."),
        ("mistral", '[TOOL_CALLS]find{"q": "a b", "n": 3}', ""),
        (
            "deepseek",
            f'{_BEGIN}{_ONE}function{_SEP}find\n```json\n{{"q": "a b", "n": 3}}\n```{_ONE_END}{_END}',
            "",
        ),
        ("deepseek", f'{_BEGIN}{_ONE}find{_SEP}{{"q": "a b", "n": 3}}{_ONE_END}{_END}', ""),
        (
            "deepseek",
            '<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>find\n```json\n{"q": "a b", "n": 3}\n```',
            "",
        ),
        (
            "glm45",
            "\n<tool_call>find\n<arg_key>q</arg_key>\n<arg_value>a b</arg_value>\n<arg_key>n</arg_key>\n"
            "<arg_value>3</arg_value>\n</tool_call>",
            "",
        ),
        ("glm45", '<tool_call>{"name": "find", "arguments": {"q": "a b", "n": 3}}</tool_call>', ""),
        (
            "qwen3_coder",
            "Ok.\n<tool_call>\n<function=find>\n<parameter=q>\na b\n</parameter>\n<parameter=n>\n3\n</parameter>\n"
            "</function>\n</tool_call>",
            "Ok.",
        ),
        (
            "qwen3_coder",
            "<function=find><parameter=q>a b</parameter><parameter=n>3</parameter></function>",
            "",
        ),
        ("qwen3_coder", "<tool_call><function=find>\n<parameter=q>\na b\n<parameter=n>\n3\n</function>", ""),
        ("granite", '<|tool_call|>[{"name": "find", "arguments": {"q": "a b", "n": 3}}]', ""),
        ("granite", '<|tool_call|>{"name": "find", "arguments": "{\\"q\\": \\"a b\\", \\"n\\": 3}"}', ""),
        ("gemma", '```tool_code\nfind(q="a b", n=3)\n```', ""),
        ("gemma", "I will.\n```tool_code\nprint(find(q='a b', n=3))\n```", "I will."),
        (
            "function_gemma",
            "<start_function_call>call:find{q:<escape>a b<escape>,n:3}<end_function_call>",
            "",
        ),
        ("gemma4", '<|tool_call>call:find{q:<|"|>a b<|"|>,n:3}<tool_call|>', ""),
        ("harmony", f'{_CHANNEL}.find <|constrain|>json<|message|>{{"q": "a b", "n": 3}}<|call|>', ""),
        ("harmony", ' to=functions.find<|channel|>commentary json<|message|>{"q": "a b", "n": 3}', ""),
        (
            "harmony",
            "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"
            f'{_CHANNEL}.find <|constrain|>json<|message|>{{"q": "a b", "n": 3}}<|call|>',
            "<think>I look.</think>",
        ),
    ],
)
def test_a_call_as_the_family_writes_it(name: str, text: str, content: str) -> None:
    message = tool_formats.make(name).parse(text)
    assert [(c.name, c.arguments, c.error) for c in message.tool_calls] == [("find", {"q": "a b", "n": 3}, None)]
    assert message.content == content


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"name": "find", "arguments": {"q": "a'),
        ("llama3", '{"name": "find", "parameters": {"q": "a'),
        ("llama3", '{"name": "find", "parameters": {"q": "a",}}'),
        ("llama3", "<|python_tag|>print(1)"),
        ("pythonic", "[find(q='a"),
        ("pythonic", "[find('a')]"),
        ("pythonic", "[find(q=a)]"),
        ("pythonic", "<|python_start|>find a"),
        ("mistral", "[TOOL_CALLS]find"),
        ("mistral", "[TOOL_CALLS]find[ARGS]"),
        ("mistral", '[TOOL_CALLS]find[ARGS]{"q": "a'),
        ("deepseek", _BEGIN),
        ("deepseek", f"{_BEGIN}{_ONE}function{_SEP}find\n```json\n"),
        ("deepseek", f'{_BEGIN}{_ONE}find{_SEP}{{"q": 1,}}{_ONE_END}{_END}'),
        ("glm45", "<tool_call>find\n<arg_key>q</arg_key>\n<arg_value>a"),
        ("glm45", "<tool_call>find\n<arg_key>q"),
        ("qwen3_coder", "<tool_call>\n<function=find>\n<parameter=q>\na"),
        ("qwen3_coder", "<tool_call>\n<function=fi"),
        ("qwen3_coder", "<function=find>stray<parameter=q>a</parameter></function>"),
        ("granite", '<|tool_call|>[{"name": "find", "arguments": {"q": "a"'),
        ("gemma", "```tool_code\nfind(q='a"),
        ("gemma", "```tool_code\nfor x in y: find(q=x)\n```"),
        ("function_gemma", "<start_function_call>call:find{q:<escape>a"),
        ("gemma4", "<|tool_call>find"),
        ("harmony", f'{_CHANNEL}.find <|constrain|>json<|message|>{{"q": "a'),
        ("harmony", f"{_CHANNEL}.find"),
        ("search_r1", "<search> </search>"),
    ],
)
def test_a_call_that_is_malformed_or_cut_is_answered(name: str, text: str) -> None:
    message = tool_formats.make(name).parse(text)
    assert [call.error is not None for call in message.tool_calls] == [True]
    assert all(len(call.error or "") < 200 for call in message.tool_calls)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3", '{"name": "Ada", "born": 1815}'),
        ("llama3", 'The JSON is {"name": "find", "parameters": {}}.'),
        ("llama3", '```json\n{"name": "find", "parameters": {}}\n```'),
        ("pythonic", "[find](https://example.org) and [f(x)] are no calls"),
        ("pythonic", "x = [find(q='a')]"),
        ("mistral", "The tag [TOOL_CALLS] comes first."),
        ("deepseek", f"The mark {_BEGIN} is special."),
        ("glm45", "a <tool_call> tag"),
        ("qwen3_coder", "Write `<function=find>` first."),
        ("granite", "Say <|tool_call|> first."),
        ("gemma", "```python\nfind(q='a')\n```"),
        ("gemma4", "The mark <|tool_call> is special."),
        ("search_r1", "I may <search> or not."),
        ("search_r1", "<think><search>draft</search></think><answer>4</answer>"),
    ],
)
def test_prose_is_content(name: str, text: str) -> None:
    assert tool_formats.make(name).parse(text) == Message(role="assistant", content=text)


def test_what_search_r1_searches_and_answers() -> None:
    message = tool_formats.make("search_r1").parse("<think>Who?</think>\n<search> who wrote Emma </search>")
    assert [(c.name, c.arguments) for c in message.tool_calls] == [("search", {"query": "who wrote Emma"})]
    unclosed = tool_formats.make("search_r1").parse("<search>who wrote Emma")
    assert [c.arguments for c in unclosed.tool_calls] == [{"query": "who wrote Emma"}]
    answer = "<think>I know.</think><answer>Austen</answer>"
    assert tool_formats.make("search_r1").parse(answer) == Message(role="assistant", content=answer)
    assert tool_formats.make("search_r1").answer("x").startswith("<information>")


def test_what_harmony_says_in_its_channels() -> None:
    text = (
        "<|channel|>analysis<|message|>to=functions.find<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "I look it up.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>"
    )
    message = tool_formats.make("harmony").parse(text)
    assert message.content == "<think>to=functions.find</think>I look it up.It is 4."
    assert message.tool_calls == ()


_WORDS = ToolSpec(
    name="note",
    description="Note it.",
    parameters={
        "properties": {
            "text": {"type": "string"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "count": {"type": "integer"},
            "flag": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
        }
    },
)


@pytest.mark.parametrize("name", ["qwen3_coder", "glm45"])
@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("text", "1984", "1984"),
        ("text", "1e3", "1e3"),
        ("text", "true", "true"),
        ("text", '"exact words"', '"exact words"'),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "", ""),
        ("text", " two\n  lines ", " two\n  lines "),
        ("text", "a </parameter> b </arg_value> c", "a </parameter> b </arg_value> c"),
        ("maybe", "null", None),
        ("maybe", "x", "x"),
        ("count", "7", 7),
        ("count", "seven", "seven"),
        ("flag", "True", True),
        ("flag", "false", False),
        ("tags", "['a', \"b\"]", ["a", "b"]),
        ("other", "[1, 2]", [1, 2]),
        ("other", "two words", "two words"),
    ],
)
def test_values_without_types_are_of_the_tools_types(name: str, key: str, written: str, value: Any) -> None:
    """``1984`` is a text where the tool wants one."""
    if name == "glm45":
        text = f"<tool_call>note\n<arg_key>{key}</arg_key>\n<arg_value>{written}</arg_value>\n</tool_call>"
    else:
        text = f"<function=note>\n<parameter={key}>\n{written}\n</parameter>\n</function>"
    (call,) = tool_formats.make(name).parse_for(text, [_WORDS]).tool_calls
    assert (call.error, call.arguments) == (None, {key: value})


@pytest.mark.parametrize("name", ["qwen3_coder", "glm45"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "null",
        '"a"',
        '"\\u003c"',
        "</parameter>\n</function>",
        "</arg_value></tool_call>",
        "\n",
        " a\n",
        "<",
    ],
)
@pytest.mark.parametrize("tools", [[], [_WORDS]])
def test_texts_that_look_like_other_values_come_through(name: str, text: str, tools: list[ToolSpec]) -> None:
    tool_format = tool_formats.make(name)
    message = Message(role="assistant", content="", tool_calls=(ToolCall(name="note", arguments={"text": text}),))
    (call,) = tool_format.parse_for(tool_format.render_for(message, tools), tools).tool_calls
    assert call.arguments == {"text": text}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("<tool_call>\n{{ call | tojson }}\n</tool_call>", "hermes"),
        ("<tool_call><function={{ name }}><parameter=x>", "qwen3_coder"),
        ("<tool_call>{{ name }}<arg_key>{{ k }}</arg_key>", "glm45"),
        ("<|start_header_id|>{{ role }}<|end_header_id|>", "llama3"),
        ("<|header_start|>{{ role }}<|python_start|>", "pythonic"),
        ("[INST][TOOL_CALLS]", "mistral"),
        (f"{_ONE}{{{{ type }}}}{_SEP}{{{{ name }}}}\n```json\n", "deepseek"),
        (f"{_ONE}{{{{ name }}}}{_SEP}", "deepseek_v31"),
        ("<|start_of_role|>{{ role }}<|tool_call|>", "granite"),
        ("<start_of_turn>{{ role }}", "gemma"),
        ("<start_of_turn>{{ role }}<start_function_call>", "function_gemma"),
        ("<|turn>{{ role }}<|tool_call>call:", "gemma4"),
        ("<|start|>assistant<|channel|>final<|message|>", "harmony"),
        ("<|im_start|>{{ role }}", "hermes"),
        ("", "hermes"),
    ],
)
def test_a_template_tells_the_family(template: str, name: str) -> None:
    assert recognise(template) == name


def test_tokens_decide_where_the_template_tells_nothing() -> None:
    assert recognise("{{ message }}", "<s> </s> [TOOL_CALLS]") == "mistral"
    assert recognise("<arg_key>", "[TOOL_CALLS]") == "glm45"


def test_ids_are_unique_in_a_conversation() -> None:
    """Formats number the calls of one message; an id that a model chose is kept while nobody else has it."""
    taken: set[str] = set()
    calls = (ToolCall(name="a", id="call_0"), ToolCall(name="b", id="call_1"))
    own = (ToolCall(name="c", id="abcdefghi"), ToolCall(name="d", id=""))
    said = [
        unique_ids(Message(role="assistant", content="", tool_calls=c), taken) for c in (calls, calls, own, own)
    ]
    ids = [call.id for message in said for call in message.tool_calls]
    assert len(set(ids)) == len(ids) == 8
    assert ids[4] == "abcdefghi"
    assert all(len(made) == 9 and made.isalnum() for made in ids)
    assert [call.name for message in said for call in message.tool_calls] == list("ababcdcd")


_SOUP = [
    *(
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<|python_tag|>",
    ),
    *("[f(a=1)]", "[f(", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", _BEGIN, _ONE, "function", _SEP, _ONE_END),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|tool_call|>", "```tool_code\n", "```", "`"),
    *("<start_function_call>", "call:f{", "<escape>", "<end_function_call>", '<|"|>', "<|channel|>", "analysis"),
    *(
        "commentary to=functions.f",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        "<search>",
        "</search>",
        "<think>",
    ),
    *(
        "</think>",
        '{"name": "f", ',
        '"arguments": {',
        '"parameters": "{}"',
        "}",
        "}}",
        "]",
        "[",
        "(",
        ")",
        '"',
        "'",
    ),
    *(
        "\\",
        "\n",
        " ",
        "None",
        "1e999",
        "9" * 5000,
        "\\ud800",
        "a=",
        "**{",
        ",",
        ":",
        "é",
        "\u2028",
        "\x00",
        "{" * 40,
    ),
]


def _inputs(tool_format: ToolFormat, rng: random.Random) -> list[str]:
    """Texts that are nearly valid, and heaps of marks."""
    calls = tuple(ToolCall(name="f", arguments={"a": rng.choice(_SOUP), "b": [1, None]}) for _ in range(2))
    valid = tool_format.render(Message(role="assistant", content="so", tool_calls=calls))
    texts = ["".join(rng.choices(_SOUP, k=rng.randrange(20))) for _ in range(50)]
    for _ in range(50):
        text = valid
        for _ in range(rng.randrange(1, 5)):
            start = rng.randrange(len(text) + 1)
            end = start + rng.randrange(6)
            text = text[:start] + rng.choice(["", rng.choice(_SOUP), 2 * text[start:end]]) + text[end:]
        texts.append(text)
    return texts


@pytest.mark.parametrize("name", tool_formats.plugins())
@pytest.mark.parametrize("part", range(2))
def test_no_text_breaks_a_format(name: str, part: int) -> None:
    """Five thousand texts each: a message that can be stored, with distinct ids and few calls, at once."""
    tool_format, rng = tool_formats.make(name), random.Random(f"{name} {part}")
    for _ in range(25):
        for text in _inputs(tool_format, rng):
            message = tool_format.parse(text)
            assert len(message.tool_calls) <= MAX_CALLS + 1
            assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)
            assert from_json(Message, to_json(message)) == message


@pytest.mark.parametrize("name", tool_formats.plugins())
def test_a_megabyte_of_one_mark_takes_little_time(name: str) -> None:
    """No mark, repeated, costs more than a linear pass; the bound is generous for a busy machine."""
    tool_format = tool_formats.make(name)
    for unit in _SOUP:
        text = unit * (100_000 // len(unit))
        started = time.process_time()
        assert dataclasses.replace(tool_format.parse(text), tool_calls=()).role == "assistant"
        assert time.process_time() - started < 2, unit
