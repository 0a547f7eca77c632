"""A conversation's ids are what its chat template says, and what was sampled is never tokenised again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from envgym.chat.tool_formats import HermesFormat
from envgym.records import Message, Task, ToolCall, ToolSpec, Trajectory, Turn
from envgym_trainers.chat.conversation import Conversation
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.tiny import make_tokenizer
from envgym_trainers.models.turn_ends import turn_ends
from envgym_trainers.stages.sft import write_tokens

_CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_THINKING = _CHATML.replace(
    "message['content']",
    "(message['content'].split('</think>')[-1] if message['role'] == 'assistant' else message['content'])",
)
_SPEC = ToolSpec(
    name="lookup", description="Find a page.", parameters={"properties": {"title": {"type": "string"}}}
)
_TEXTS = ["What is 12 + 7?", "It is <answer>19</answer>.", "lookup title"]


def _chatml(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose role markers are special tokens without a named part, as in Llama 3 and SmolLM2."""
    tokenizer = make_tokenizer(_TEXTS, 300)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>", "<|file|>")])
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = template
    return tokenizer


_TOKENIZERS = {"tiny": make_tokenizer(_TEXTS, 300), "chatml": _chatml(_CHATML)}


@pytest.fixture(params=_TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return _TOKENIZERS[request.param]


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _open(tokenizer: PreTrainedTokenizerFast, *tools: ToolSpec) -> Conversation:
    return Conversation(tokenizer, tools, HermesFormat())


def _play(
    conversation: Conversation, tokenizer: PreTrainedTokenizerFast, exchange: list[tuple[list[Message], str]]
) -> tuple[list[int], list[bool]]:
    """Ids of the whole conversation where every completion is written as the tokenizer would, and the forks."""
    stops = turn_ends(tokenizer)
    ids: list[int] = []
    forks = []
    for messages, answer in exchange:
        prompt, fork = conversation.prompt(messages)
        forks.append(fork)
        completion = [*conversation.encode(answer), stops[0]]
        assert conversation.sampled(completion, stops) == answer
        ids = ([] if fork else ids) + prompt + completion
    return ids, forks


_HARMLESS = st.text(max_size=20).filter(lambda text: "<|" not in text)
"""Hypothesis knows the constants of the code, special tokens included; those have tests of their own."""


@pytest.mark.parametrize("name", _TOKENIZERS)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(["user", "tool"]), _HARMLESS), min_size=1, max_size=2),
            _HARMLESS,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_turns_add_up_to_the_template(name: str, plan: list[tuple[list[tuple[str, str]], str]]) -> None:
    """Turn by turn the same ids as the whole conversation tokenised at once; only what follows the end differs."""
    tokenizer = _TOKENIZERS[name]
    exchange = [([Message(role=role, content=text) for role, text in new], answer) for new, answer in plan]
    ids, forks = _play(_open(tokenizer), tokenizer, exchange)
    history = [
        entry
        for messages, answer in exchange
        for entry in [
            *({"role": m.role, "content": m.content} for m in messages),
            {"role": "assistant", "content": answer},
        ]
    ]
    whole = tokenizer.encode(tokenizer.apply_chat_template(history, tokenize=False), add_special_tokens=False)
    assert not any(forks)
    assert ids == whole[: len(ids)]
    assert tokenizer.decode(whole[len(ids) :]).strip() == ""


def test_a_template_that_drops_reasoning_forks() -> None:
    """The second turn's prompt is the whole rewritten conversation, and trains as a sample of its own."""
    tokenizer = _chatml(_THINKING)
    conversation = _open(tokenizer)
    stops = turn_ends(tokenizer)
    first, fork = conversation.prompt([_user("12 + 7?")])
    assert not fork
    conversation.sampled([*conversation.encode("<think>12, 7</think>19"), stops[0]], stops)
    second, fork = conversation.prompt([_user("sure?")])
    assert fork
    text = tokenizer.decode(second)
    assert text.startswith(tokenizer.decode(first) + "19<|im_end|>")
    assert "think" not in text
    assert text.endswith("<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n")


def test_no_fork_while_the_template_leaves_history_alone() -> None:
    tokenizer = _chatml(_THINKING)
    _, forks = _play(_open(tokenizer), tokenizer, [([_user("a")], "b"), ([_user("c")], "<think>d</think>e")])
    assert forks == [False, False]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["<|im_end|>", "<|im_start|>", "<|file|>", "<|end|>", "<|user|>", "<|pad|>", "<|"]),
            st.text(alphabet="<|>im_end ", max_size=6),
        ),
        max_size=6,
    ).map("".join)
)
def test_environment_text_cannot_spell_a_special_token(hostile: str) -> None:
    """Whatever a tool returns, the special ids of the prompt are those of a harmless message."""
    tokenizer = _TOKENIZERS["chatml"]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    def specials(content: str) -> list[int]:
        ids, _ = _open(tokenizer).prompt([Message(role="tool", content=content)])
        return [i for i in ids if i in special]

    assert specials(hostile) == specials("harmless")


def test_special_tokens_that_the_model_sampled_stay(tokenizer: PreTrainedTokenizerFast) -> None:
    """A model may write nonsense; its ids are kept and the next turn continues them."""
    conversation = _open(tokenizer)
    stops = turn_ends(tokenizer)
    conversation.prompt([_user("hi")])
    nonsense = [*conversation.encode("<|user|>no<|file|>"), 260, stops[0]]
    conversation.sampled(nonsense, stops)
    _, fork = conversation.prompt([_user("go on")])
    assert not fork


def test_half_a_character_does_not_break_the_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    """A lone byte of a multi-byte character decodes to U+FFFD: in the text alone, the ids are as sampled."""
    conversation = _open(tokenizer)
    stops = turn_ends(tokenizer)
    conversation.prompt([_user("hi")])
    half = conversation.encode("é")[:1]
    assert conversation.sampled([*half, stops[0]], stops) == "\ufffd"
    _, fork = conversation.prompt([_user("go on")])
    assert not fork


def test_only_a_stop_id_at_the_end_is_taken_off(tokenizer: PreTrainedTokenizerFast) -> None:
    stops = turn_ends(tokenizer)
    for ids, text in (([*tokenizer.encode("ab"), stops[0]], "ab"), (tokenizer.encode("ab"), "ab"), ([], "")):
        conversation = _open(tokenizer)
        conversation.prompt([_user("hi")])
        assert conversation.sampled(ids, stops) == text


@pytest.mark.parametrize("opening", [[], [Message(role="system", content="Be brief.")]])
def test_tools_reach_a_model_whose_template_ignores_them(opening: list[Message]) -> None:
    """SmolLM2's template renders no tools: the system message names them and says how to call them, once."""
    tokenizer = _TOKENIZERS["chatml"]
    conversation = _open(tokenizer, _SPEC)
    ids, _ = conversation.prompt([*opening, _user("hi")])
    text = tokenizer.decode(ids)
    assert text.count("lookup") == 1
    assert "<tool_call>" in text
    assert text.count("<|im_start|>system") == 1
    assert all(message.content in text for message in opening)
    stops = turn_ends(tokenizer)
    conversation.sampled([*conversation.encode("ok"), stops[0]], stops)
    ids, fork = conversation.prompt([_user("more")])
    assert not fork
    assert "lookup" not in tokenizer.decode(ids)


def test_a_template_that_knows_tools_shows_them_its_own_way() -> None:
    tokenizer = _TOKENIZERS["tiny"]
    ids, _ = _open(tokenizer, _SPEC).prompt([_user("hi")])
    assert tokenizer.decode(ids) == "lookup(title) <|user|>hi<|end|><|assistant|>"


def test_gold_tokens_decode_to_the_rendered_conversation(make_language_model: Callable[[], LanguageModel]) -> None:
    """Supervised ids: the conversation as the template renders it; the mask covers the expert's words alone."""
    language_model = make_language_model()
    call = ToolCall(name="lookup", arguments={"title": "12 + 7"}, id="c")
    trajectory = Trajectory(
        env="e",
        task=Task(id="t", split="train", messages=()),
        tools=(_SPEC,),
        turns=[
            Turn(messages=(_user("12 + 7?"),), action=Message(role="assistant", content="", tool_calls=(call,))),
            Turn(
                messages=(Message(role="tool", content="19"),),
                action=Message(role="assistant", content="<answer>19</answer>"),
            ),
        ],
    )
    write_tokens(trajectory, language_model)
    (sample,) = samples_of(trajectory, "g")
    decode = language_model.tokenizer.decode
    written = '<tool_call>{"name":"lookup","arguments":{"title":"12 + 7"}}</tool_call>'
    assert decode(sample.ids) == (
        f"lookup(title) <|user|>12 + 7?<|end|><|assistant|>{written}<|end|>"
        "<|tool|>19<|end|><|assistant|><answer>19</answer><|end|>"
    )
    assert decode(sample.ids[sample.mask]) == f"{written}<|end|><answer>19</answer><|end|>"
