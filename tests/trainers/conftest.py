"""Makers of samples and a tiny language model, shared by the trainer's tests."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM

from envgym_trainers.batch import Sample
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import NewModelConfig
from envgym_trainers.models.tiny import new_model

torch.set_num_threads(1)  # tests run in parallel processes
# A busy machine says nothing about a property.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

MakeSample = Callable[..., Sample]


@pytest.fixture(scope="session")
def make_sample() -> MakeSample:
    """``make_sample([0, 1, 1], advantage=…, seed=…)``: random ids below 97 and log-probs under that mask."""

    def make(mask: list[int], *, advantage: float = 1.0, seed: int = 0, **extra: torch.Tensor) -> Sample:
        generator = torch.Generator().manual_seed(seed)
        sampled = torch.tensor(mask, dtype=torch.bool)
        logprobs = -torch.rand(len(mask), generator=generator)
        return Sample(
            ids=torch.randint(0, 97, (len(mask),), generator=generator),
            mask=sampled,
            logprobs=torch.where(sampled, logprobs, torch.nan),
            advantages=sampled.float() * advantage,
            group="g",
            version=0,
            **extra,
        )

    return make


@pytest.fixture(scope="session")
def tiny_llama() -> LlamaForCausalLM:
    """A random two-layer Llama in float64 with a vocabulary of 97, which no other dimension equals."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).double()


@pytest.fixture(scope="session")
def make_language_model() -> Callable[[], LanguageModel]:
    """A new random model of two layers with its tokenizer; equal weights every time."""

    def make() -> LanguageModel:
        torch.manual_seed(0)
        config = NewModelConfig(vocabulary=300, hidden_size=32, layers=2, heads=2)
        return new_model(config, ["the sum of 12 and 7 is <answer>19</answer>"], 128)

    return make


@pytest.fixture(scope="session")
def model_folder(
    make_language_model: Callable[[], LanguageModel], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same model, saved."""
    folder = tmp_path_factory.mktemp("model")
    make_language_model().save(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[int], AbstractContextManager[Path]]:
    """``with small_disk(size) as folder``: a folder that takes no more than ``size`` bytes.

    A file system of that size for root, who alone may mount one; for others a limit to the size of any file.
    """

    @contextlib.contextmanager
    def full(size: int) -> Iterator[Path]:
        place = tmp_path / f"disk-{size}"
        place.mkdir()
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
            try:
                yield place
            finally:  # lazily: a test that failed keeps files open
                subprocess.run(["umount", "--lazy", place], check=True)
            return
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield place
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return full
