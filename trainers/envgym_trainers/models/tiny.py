"""Make a small Llama and its tokenizer from scratch."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from envgym.errors import RecipeError
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import NewModelConfig

__all__ = ["make_tokenizer", "new_model"]

_ROLES = ("system", "user", "assistant", "tool")
_END, _PAD = "<|end|>", "<|pad|>"
_TAGS = ("<tool_call>", "</tool_call>", "<answer>", "</answer>")

# Tools come first, one short signature each; every message ends with the same token.
_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}"
    "({{ tool.function.parameters.properties | join(',') }}) {% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# Letters, single digits, single spaces and runs of signs are separate words, so that a name or a number has the
# same tokens wherever it stands: copying is what small models can learn.
_WORDS = r"[A-Za-z]+|[0-9]| |[^A-Za-z0-9 ]+"


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a chat template; any text can be encoded.

    Args:
        texts: examples of the text to encode.
        vocabulary: number of tokens, at least 256 plus the special ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [_PAD, _END, *(f"<|{role}|>" for role in _ROLES)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(_TAGS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(_TAGS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[f"<|{role}|>" for role in _ROLES],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_model(config: NewModelConfig, texts: Iterable[str], context: int) -> LanguageModel:
    """Make a Llama on the CPU in float32, initialised from torch's global seed, and a tokenizer for ``texts``.

    Raises:
        RecipeError: the hidden size cannot be split among the heads.
    """
    if config.hidden_size % (2 * config.heads):
        raise RecipeError(
            f"model.new: hidden_size {config.hidden_size} must be a multiple of 2 * heads = {2 * config.heads}"
        )
    tokenizer = make_tokenizer(texts, config.vocabulary)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=3 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=1,  # decoding many short conversations reads little but keys and values
            max_position_embeddings=context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    return LanguageModel(model=model.eval(), tokenizer=tokenizer, context=context)
