"""Whether a server samples from the trainer's weights: one sequence of it, recomputed here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.engine.server.dialect import TokenReply
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["PROBE", "LogprobComparison", "compare", "probe_ids"]

PROBE = SamplingParams(max_tokens=16, temperature=0.5)
"""At another temperature than 1, log-probs tell whether they are those of the sampled distribution."""
_PROMPT = 24


@dataclass(frozen=True, slots=True)
class LogprobComparison:
    """Mean absolute differences of a server's log-probs from the trainer's, in nats."""

    gap: float
    gap_before_temperature: float
    """From log-probs at temperature 1, which some servers report whatever the temperature."""


def probe_ids(language_model: LanguageModel, seed: int) -> list[int]:
    """Return a prompt that no model has an opinion on."""
    rng = random.Random(seed)
    known = sorted(set(language_model.tokenizer.get_vocab().values()) - set(language_model.stop_ids))
    length = max(1, min(_PROMPT, language_model.context - PROBE.max_tokens))
    return [rng.choice(known) for _ in range(length)]


@torch.no_grad()
def compare(
    language_model: LanguageModel, prompt: Sequence[int], reply: TokenReply, temperature: float
) -> LogprobComparison:
    """Compare the log-probs of a reply with one plain forward pass of the trainer's model.

    Args:
        language_model: the trainer's model.
        prompt: ids before the reply. [P]
        reply: what the server sampled at ``temperature``. [N], N ≥ 1
        temperature: positive.
    """
    ids = torch.tensor([[*prompt, *reply.ids]], device=language_model.device)
    logits = language_model.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    reported = torch.tensor(reply.logprobs, device=logits.device)
    sampled = torch.tensor(reply.ids, device=logits.device)[:, None]

    def gap(scale: float) -> float:
        own = torch.log_softmax(logits / scale, dim=-1).gather(1, sampled)[:, 0]
        return float((own - reported).abs().mean())

    return LogprobComparison(gap=gap(temperature), gap_before_temperature=gap(1.0))
