"""Play a tool episode of three turns with every chat template of a folder, and say which come through.

    python benchmarks/chat_templates.py FOLDER [--markdown]

The templates of TRL are in its wheel: ``pip install --no-deps --target FOLDER trl`` gives ``trl/chat_templates``.
Each template gets a small tokenizer whose special tokens are those that it writes. A template comes through if
every message reaches the model once and in order, what was sampled is never tokenised again, and the ids of each
prompt decode to what the template writes. Exit code 1: one does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from envgym.chat.tool_formats import ToolFormat, recognise, tool_formats
from envgym.errors import UserError
from envgym.records import Message, ToolCall, ToolSpec
from envgym_trainers.chat.conversation import Conversation
from envgym_trainers.chat.manners import Manners
from envgym_trainers.models.tiny import make_tokenizer
from envgym_trainers.models.turn_ends import turn_ends

__all__ = ["Result", "play", "tokenizer_for"]

_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|<\|[a-z_]+>|<[a-z_]+\|>|</?(?:start|end)_of_(?:turn|utterance)>"
)
_LOOK = ToolSpec(
    name="look",
    description="Look at a page.",
    parameters={"type": "object", "properties": {"page": {"type": "string"}}, "required": ["page"]},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of an episode."""

    tool_format: str
    manners: str
    """Form in which the template takes messages."""
    forks: int
    """Turns whose prompt the template wrote anew."""
    problem: str = ""


def tokenizer_for(template: str) -> PreTrainedTokenizerFast:
    """Return a small tokenizer with the special tokens that the template writes."""
    tokenizer = make_tokenizer(["look at the page and say what is there"], 300)
    specials = sorted({*_SPECIAL.findall(template), "<s>", "</s>"})
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    tokenizer.chat_template = template
    return tokenizer


def play(template: str) -> Result:
    """Play the episode: two calls in turn, an answer, and a question of the user's."""
    name = recognise(template)
    tool_format = tool_formats.make(name)
    tokenizer = tokenizer_for(template)
    try:
        manners = Manners.of(tokenizer, tool_format)
    except UserError as error:
        return Result(tool_format=name, manners="none", forks=0, problem=str(error))
    episode = _Episode(tokenizer, tool_format)
    problem = next(episode.problems(), "")
    return Result(tool_format=name, manners=_in_words(manners), forks=episode.forks, problem=problem)


class _Episode:
    def __init__(self, tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat) -> None:
        self.tokenizer = tokenizer
        self.tool_format = tool_format
        self.conversation = Conversation(tokenizer, [_LOOK], tool_format)
        self.stops = turn_ends(tokenizer)
        self.ids: list[int] = []
        self.forks = 0

    def problems(self) -> Iterator[str]:
        """Yield what goes wrong; nothing does if the template comes through."""
        told = [Message(role="system", content="Qsystem"), Message(role="user", content="Quser")]
        calls = [self._call("Qfirst"), self._call("Qsecond")]
        ids = []
        yield from self._turn(told, calls[0], ["Qsystem", "Quser"])
        ids += [call.id for call in self.conversation.message.tool_calls]
        yield from self._turn([self._answer("Qone", ids)], calls[1], ["Quser", "Qfirst", "Qone"])
        ids += [call.id for call in self.conversation.message.tool_calls]
        final = Message(role="assistant", content="Qanswer")
        yield from self._turn([self._answer("Qtwo", ids)], final, ["Qfirst", "Qone", "Qsecond", "Qtwo"])
        shown = ["Quser", "Qfirst", "Qone", "Qsecond", "Qtwo", "Qanswer", "Qmore"]
        yield from self._turn([Message(role="user", content="Qmore")], final, shown)
        if len(set(ids)) != 2:
            yield f"the calls have the ids {ids}"

    def _turn(self, messages: list[Message], action: Message, shown: list[str]) -> Iterator[str]:
        try:
            new, fork = self.conversation.prompt(messages)
        except Exception as error:  # noqa: BLE001 - whatever a template raises is the result
            yield f"{type(error).__name__}: {error}"
            return
        self.forks += fork
        self.ids = new if fork else self.ids + new
        text = self.tokenizer.decode(self.ids)
        place = 0
        for word in shown:
            found = text.find(word, place)
            if found < 0:
                yield f"{word} is not shown: {text[-300:]!r}"
                return
            place = found
            if text.count(word) > 1 and word != "Qanswer":
                yield f"{word} is shown twice"
        # A thought that the prompt begins is the model's to end.
        thought = "Hm.\n</think>\n\n" if text.rstrip().endswith("<think>") else ""
        said = self.conversation.encode(thought + self.tool_format.render_for(action, [_LOOK]))
        said = said if said and said[-1] in self.stops else [*said, self.stops[0]]
        self.ids += said
        self.conversation.sampled(said, self.stops)
        read = self.conversation.message
        wanted = [(call.name, call.arguments, None) for call in action.tool_calls]
        if [(call.name, call.arguments, call.error) for call in read.tool_calls] != wanted:
            yield f"the call is read as {read}"

    def _call(self, page: str) -> Message:
        return Message(role="assistant", content="", tool_calls=(ToolCall(name="look", arguments={"page": page}),))

    def _answer(self, text: str, ids: list[str]) -> Message:
        return Message(role="tool", content=text, tool_call_id=ids[-1] if ids else "")


def _in_words(manners: Manners) -> str:
    words = {
        "system text in the first user message": not manners.system,
        "calls given apart": manners.answers == "calls",
        "arguments as a string": manners.encoded,
        "answers as a user's text": manners.answers == "user",
        "neighbours merged": manners.merged,
        "content in parts": manners.parts,
    }
    return ", ".join(text for text, holds in words.items() if holds) or "as they are"


def main() -> int:
    """Print one line a template; return 1 if one does not come through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markdown", action="store_true", help="a table for the documentation")
    options = parser.parse_args()
    failed = 0
    for path in sorted(options.folder.glob("*.jinja")):
        result = play(path.read_text(encoding="utf-8"))
        failed += bool(result.problem)
        columns = [path.stem, result.tool_format, result.manners, str(result.forks), result.problem or "works"]
        print("| " + " | ".join(columns) + " |" if options.markdown else "  ".join(columns))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
