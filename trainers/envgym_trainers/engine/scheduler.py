"""The engine's inner loop, free of threads: rows in, tokens out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from envgym_trainers.engine.cache import SlotCache
from envgym_trainers.engine.sampling import choose

__all__ = ["Row", "Scheduler"]


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One conversation that is sampling or could."""

    slot: int = -1
    ids: list[int] = field(default_factory=list)
    """Everything the conversation holds, sampled ids included."""
    cached: int = 0
    """How many of ``ids`` have keys and values in the cache."""
    version: int = -1
    """Weights that made the cached keys and values."""
    budget: int = 0
    temperature: float = 1.0
    uniform: np.ndarray | None = None
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """The last sampled id ends the turn."""


class Scheduler:
    """Extends and decodes rows in batches against one slot cache.

    Args:
        model: a causal LM in evaluation mode.
        slots: conversations that can hold a cache row at once.
        capacity: tokens a conversation can hold.
        stop_ids: ids that end a turn.
    """

    def __init__(self, model: PreTrainedModel, *, slots: int, capacity: int, stop_ids: frozenset[int]) -> None:
        self.model = model
        self.capacity = capacity
        self.stop_ids = stop_ids
        self.device = model.device
        # One cell more than a row can use: padding is written there and never read.
        self._cache = SlotCache(model.config, slots, capacity + 1, model.dtype, model.device)
        self._free = sorted(range(slots), reverse=True)

    @property
    def free_slots(self) -> int:
        """Rows that could be admitted now."""
        return len(self._free)

    def admit(self, row: Row) -> None:
        """Give the row the lowest free slot; low slots keep the decoding batch dense."""
        row.slot, row.cached = self._free.pop(), 0

    def release(self, row: Row) -> None:
        """Take the row's slot back."""
        self._free.append(row.slot)
        self._free.sort(reverse=True)
        row.slot = -1

    @torch.inference_mode()
    def extend(self, rows: list[Row]) -> None:
        """Run every uncached token of ``rows`` and sample one token for each.

        Rows that start from the same prompt are run once and share the result.
        """
        leaders: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            key = tuple(row.ids) if row.cached == 0 else (-1, row.slot)
            leaders.setdefault(key, []).append(row)
        first = [group[0] for group in leaders.values()]
        new = [row.ids[row.cached :] for row in first]
        width = max(map(len, new))
        ids = torch.zeros(len(first), width, dtype=torch.long)
        positions = torch.full((len(first), width), self.capacity)
        for i, (row, tokens) in enumerate(zip(first, new, strict=True)):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            positions[i, : len(tokens)] = torch.arange(row.cached, row.cached + len(tokens))
        slots = torch.tensor([row.slot for row in first])
        visible = max(len(row.ids) for row in first)
        hidden = self._forward(ids, positions, slots, visible=visible, contiguous=False)
        last = torch.tensor([len(tokens) - 1 for tokens in new], device=self.device)
        hidden = hidden[torch.arange(len(first), device=self.device), last]
        for group in leaders.values():
            length = len(group[0].ids)
            if len(group) > 1:
                self._cache.share(group[0].slot, [row.slot for row in group[1:]], length)
            for row in group:
                row.cached = length
        order = [row for group in leaders.values() for row in group]
        repeats = torch.tensor([len(group) for group in leaders.values()], device=self.device)
        self._sample(order, hidden.repeat_interleave(repeats, dim=0))

    @torch.inference_mode()
    def decode(self, rows: list[Row]) -> None:
        """Run the last sampled token of every row and sample the next.

        The batch is every slot up to the highest in use: idle ones run a dummy token in the spare cell, which
        costs less than gathering the keys of the others.
        """
        count = max(row.slot for row in rows) + 1
        ids = torch.zeros(count, 1, dtype=torch.long)
        positions = torch.full((count, 1), self.capacity)
        for row in rows:
            ids[row.slot, 0] = row.ids[row.cached]
            positions[row.slot, 0] = row.cached
        visible = max(row.cached for row in rows) + 1
        hidden = self._forward(ids, positions, torch.arange(count), visible=visible, contiguous=True)
        for row in rows:
            row.cached += 1
        index = torch.tensor([row.slot for row in rows], device=self.device)
        self._sample(rows, hidden[index, -1])

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor, *, visible: int, contiguous: bool
    ) -> torch.Tensor:
        positions = positions.to(self.device)
        mask = self._cache.place(slots.to(self.device), positions, visible=visible, contiguous=contiguous)
        output = self.model.get_decoder()(
            input_ids=ids.to(self.device),
            attention_mask=mask,
            position_ids=positions.clamp(max=self.capacity - 1),
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _sample(self, rows: list[Row], hidden: torch.Tensor) -> None:
        logits = self.model.get_output_embeddings()(hidden)
        uniform = torch.tensor(
            [0.0 if row.uniform is None else float(row.uniform[len(row.sampled)]) for row in rows]
        )
        temperature = torch.tensor([row.temperature for row in rows])
        tokens, logprobs = choose(logits, uniform.to(self.device), temperature.to(self.device))
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.sampled.append(token)
            row.logprobs.append(logprob)
            row.ended = token in self.stop_ids
