"""The engine's scheduler, without threads: it batches rows, runs the model and samples tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from envgym.errors import UserError
from envgym_trainers.engine.cache import SlotCache
from envgym_trainers.engine.sampling import choose
from envgym_trainers.engine.sequences import SHARED_TOKENS, Row, common, opening, passes, pioneers, together
from envgym_trainers.models.attention import attention_mask
from envgym_trainers.models.head import has_plain_head

__all__ = ["Scheduler"]

_DONORS = 4
"""Number of cached rows compared for the longest common prefix."""
_IDLE_SHARE = 1.25
"""Slots that a decoding step may run per slot that samples, before rows are compacted."""


class Scheduler:
    """Extends and decodes rows in batches against one slot cache.

    A row is run in two ways. ``extend`` (prefill) runs all of its new tokens, in passes over rows of like length,
    and copies the keys of a common prefix instead of running it again. ``decode`` runs one token of every active
    row; those hold the lowest slots, so that the cache is read as one view and no key is copied. Rows may differ
    in length: positions and the mask keep them apart, and padding is written to a spare cell that is never read.

    Args:
        model: a causal LM in evaluation mode.
        slots: number of cache rows.
        capacity: maximum number of tokens in a conversation.
        stop_ids: ids that end a turn.

    Raises:
        UserError: the model cannot be run this way.
    """

    def __init__(self, model: PreTrainedModel, *, slots: int, capacity: int, stop_ids: frozenset[int]) -> None:
        self.model = model
        self.capacity = capacity
        self.stop_ids = stop_ids
        self.device = model.device
        self._cache = SlotCache(model.config, slots, capacity)
        self._holders: list[Row | None] = [None] * slots
        self._prove()

    @property
    def free_slots(self) -> int:
        """Number of free slots."""
        return self._holders.count(None)

    def admit(self, row: Row) -> None:
        """Give the row the lowest free slot."""
        row.slot, row.cached = self._holders.index(None), 0
        self._holders[row.slot] = row

    def release(self, row: Row) -> None:
        """Free the row's slot."""
        self._holders[row.slot] = None
        row.slot = -1

    @torch.inference_mode()
    def extend(self, rows: list[Row]) -> None:
        """Run every uncached token of ``rows`` and sample one token for each.

        A prefix that rows have in common is run once: the prompt of a group, the instructions and tools of an
        environment.
        """
        groups = together(rows)
        # Two rounds: once one row of each opening is cached, the others can copy its keys.
        for some in pioneers(groups):
            self._borrow(some)
            for batch in passes(some):
                self._extend(batch)

    def _extend(self, groups: list[list[Row]]) -> None:
        """Run the first row of each group, and copy its keys to the others."""
        first = [group[0] for group in groups]
        logits = self._run([row.ids[row.cached :] for row in first], first)
        for group in groups:
            length = len(group[0].ids)
            if len(group) > 1:
                self._cache.share(group[0].slot, [row.slot for row in group[1:]], length)
            for row in group:
                row.cached = length
        repeats = torch.tensor([len(group) for group in groups], device=self.device)
        members = [row for group in groups for row in group]
        # output_size is known here; without it, repeat_interleave would synchronise with the GPU to find it.
        self._sample(members, logits.repeat_interleave(repeats, dim=0, output_size=len(members)))

    def _borrow(self, groups: list[list[Row]]) -> None:
        """Copy to new rows the longest prefix that a row has cached under the same weights."""
        donors: dict[tuple[int, ...], list[Row]] = {}
        for holder in self._holders:
            if holder is not None and holder.cached >= SHARED_TOKENS:
                donors.setdefault(opening(holder), []).append(holder)
        for group in groups:
            row = group[0]
            if row.cached:
                continue
            # At least one token is left to run, as the row samples from its logits.
            found = [d for d in donors.get(opening(row), []) if d.version == row.version][:_DONORS]
            lengths = [min(common(d.ids, row.ids), d.cached, len(row.ids) - 1) for d in found]
            if lengths and max(lengths) >= SHARED_TOKENS:
                length = max(lengths)
                self._cache.share(found[lengths.index(length)].slot, [row.slot], length)
                for member in group:
                    member.cached = length

    @torch.inference_mode()
    def decode(self, rows: list[Row]) -> None:
        """Run the last sampled token of every row and sample the next.

        The batch is every slot up to the highest active one, so that the cache is read as a view: the few idle
        slots run a dummy token in the spare cell, which costs less than gathering the keys of all others.
        """
        self._compact(rows)
        slots = [row.slot for row in rows]
        count = max(slots) + 1
        ids, positions = np.zeros(count, np.int64), np.full(count, self.capacity)
        ids[slots] = [row.ids[row.cached] for row in rows]
        positions[slots] = [row.cached for row in rows]
        visible = max(row.cached for row in rows) + 1
        wanted = (torch.tensor(slots), torch.zeros(len(rows), dtype=torch.long))
        logits = self._forward(
            torch.from_numpy(ids)[:, None],
            torch.from_numpy(positions)[:, None],
            torch.arange(count),
            visible=visible,
            contiguous=True,
            wanted=wanted,
        )
        for row in rows:
            row.cached += 1
        self._sample(rows, logits)

    def _compact(self, rows: list[Row]) -> None:
        """Move the rows to the lowest slots once the idle slots among them would cost more than the move."""
        count = max(row.slot for row in rows) + 1
        if count <= len(rows) * _IDLE_SHARE:
            return
        active = set(rows)
        low = [slot for slot in range(len(rows)) if self._holders[slot] not in active]
        high = [row.slot for row in rows if row.slot >= len(rows)]
        held = [holder.cached for slot in (*low, *high) if (holder := self._holders[slot]) is not None]
        self._cache.swap(low, high, max(held))
        for a, b in zip(low, high, strict=True):
            self._holders[a], self._holders[b] = self._holders[b], self._holders[a]
            for slot in (a, b):
                if (holder := self._holders[slot]) is not None:
                    holder.slot = slot

    def _run(self, new: list[list[int]], rows: list[Row]) -> torch.Tensor:
        """Append the tokens ``new`` of each row to its cached ones; return the logits after the last, [B, V]."""
        width = max(map(len, new))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.full((len(rows), width), self.capacity)
        for i, (row, tokens) in enumerate(zip(rows, new, strict=True)):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            positions[i, : len(tokens)] = torch.arange(row.cached, row.cached + len(tokens))
        visible = max(row.cached + len(tokens) for row, tokens in zip(rows, new, strict=True))
        slots = torch.tensor([row.slot for row in rows])
        wanted = (torch.arange(len(rows)), torch.tensor([len(tokens) - 1 for tokens in new]))
        return self._forward(ids, positions, slots, visible=visible, contiguous=False, wanted=wanted)

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        *,
        visible: int,
        contiguous: bool,
        wanted: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return logits, [N, V], at the positions ``wanted``: rows of the batch and columns, [N] each."""
        positions = positions.to(self.device)
        seen = self._cache.place(slots.to(self.device), positions, visible=visible, contiguous=contiguous)
        arguments: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": attention_mask(self.model, seen),
            "position_ids": positions.clamp(max=self.capacity - 1),
            "past_key_values": self._cache,
            "use_cache": True,
        }
        rows, columns = (index.to(self.device) for index in wanted)
        if has_plain_head(self.model):
            hidden = self.model.get_decoder()(**arguments).last_hidden_state
            logits: torch.Tensor = self.model.get_output_embeddings()(hidden[rows, columns])
            return logits
        kept, place = columns.unique(return_inverse=True)
        whole: torch.Tensor = self.model(**arguments, logits_to_keep=kept).logits
        return whole[rows, place]

    def _sample(self, rows: list[Row], logits: torch.Tensor) -> None:
        uniform = torch.tensor([row.uniform[len(row.sampled)] for row in rows], dtype=torch.float64)
        temperature = torch.tensor([row.temperature for row in rows])
        tokens, logprobs = choose(logits, uniform.to(self.device), temperature.to(self.device))
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.sampled.append(token)
            row.logprobs.append(logprob)
            row.ended = token in self.stop_ids

    @torch.inference_mode()
    def _prove(self) -> None:
        """Check that the model can be run in pieces, because architectures differ in their positions and masks.

        Two rows, run in uneven pieces, must give the logits of a plain forward pass.
        """
        ids = [i % self.model.config.get_text_config().vocab_size for i in range(min(8, self.capacity))]
        rows = [Row(slot=slot) for slot in range(min(2, self.free_slots))]
        cuts = [len(ids) - 3, 2][: len(rows)]
        try:
            expected = self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=False).logits[0, -1]
            self._run([ids[:cut] for cut in cuts], rows)
            for row, cut in zip(rows, cuts, strict=True):
                row.cached = cut
            found = self._run([ids[cut:] for cut in cuts], rows)
            gaps = torch.linalg.vector_norm(found - expected, dim=-1)
            gap = gaps.max() / torch.linalg.vector_norm(expected - expected.mean())
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            raise UserError(f"the in-process engine cannot run a {type(self.model).__name__}: {error}") from error
        if not gap < _TOLERANCE:
            raise UserError(
                f"the in-process engine cannot run a {type(self.model).__name__}: with cached keys its logits are "
                f"{float(gap):.0%} off those of a plain forward pass; serve the model over HTTP instead"
            )


_TOLERANCE = 0.1
"""Relative norm. bfloat16 rounding stays below a few per cent; a wrong mask or position gives about 1."""
