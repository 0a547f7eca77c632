"""The engine's scheduler, without threads: it batches rows, runs the model and samples tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from envgym.errors import UserError
from envgym_trainers.engine.attention import Decoding, Extension, PassPlan
from envgym_trainers.engine.cache import Cache, Pool, Row
from envgym_trainers.engine.sampling import choose
from envgym_trainers.engine.sequences import SHARED_TOKENS, common, opening, passes, pioneers, together
from envgym_trainers.engine.spans import layer_spans
from envgym_trainers.engine.view import ModelView
from envgym_trainers.models.attention import layers_without_attention

__all__ = ["Scheduler"]

_DONORS = 4
"""Number of cached rows compared for the longest common prefix."""


class Scheduler:
    """Extends and decodes rows in batches against one cache.

    A row is run in two ways. ``extend`` (prefill) runs all of its new tokens, and copies the keys of a common
    prefix instead of running it again. ``decode`` runs one token of every active row. Either way the tokens stand
    one after another in a flat batch, and each row attends to itself (``envgym_trainers.engine.attention``).

    Args:
        model: a causal LM in evaluation mode.
        memory: bytes that keys and values may take.
        capacity: maximum number of tokens in a conversation.
        ends: returns whether the tokens that a row has sampled end its turn.

    Raises:
        UserError: the model cannot be run this way, or one conversation does not fit the memory.
    """

    def __init__(self, model: PreTrainedModel, *, memory: int, capacity: int, ends: Callable[[Row], bool]) -> None:
        self.ends = ends
        self.device = model.device
        self.capacity = capacity
        if kinds := layers_without_attention(model.config):
            raise UserError(
                f"the in-process engine needs attention in every layer; this model has {', '.join(kinds)}"
            )
        self._spans = layer_spans(model.config)
        self._view = ModelView(model)
        self.renew()
        self._cache = Cache(capacity, 4 * capacity)
        each = self._prove(model)
        if memory < each * capacity:
            raise UserError(
                f"engine.memory = {memory / 2**30:.3g} GiB holds {memory // each:,} tokens, and one conversation "
                f"may have {capacity:,} (model.context): raise engine.memory to "
                f"{each * capacity / 2**30:.3g} or more, or lower model.context"
            )
        self._cache = Cache(capacity, memory // each)

    @property
    def heavy(self) -> bool:
        """True if a step takes long beside what environments do between their turns."""
        return self._view.packs

    def renew(self) -> None:
        """Take the model's weights as they are now; cached keys of older ones are the caller's to drop."""
        self._view.renew()

    def rest(self) -> None:
        """Free keys, values and packed weights; ``renew`` comes before the next pass."""
        self._cache.clear()
        self._view.rest()

    @torch.inference_mode()
    def reserve(self, row: Row, tokens: int) -> bool:
        """Make room for ``tokens`` tokens of the row; false if the memory has none left."""
        return self._cache.reserve(row, tokens)

    def release(self, row: Row) -> None:
        """Free the row's keys and values."""
        self._cache.release(row)

    @torch.inference_mode()
    def extend(self, rows: list[Row]) -> None:
        """Run every uncached token of ``rows``, for which there is room, and sample one token for each.

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
        logits = self._run([group[0] for group in groups])
        for group in groups:
            first, length = group[0], len(group[0].ids)
            self._copy(first, group[1:], length)
            for row in group:
                row.cached = length
        repeats = torch.tensor([len(group) for group in groups], device=self.device)
        members = [row for group in groups for row in group]
        # output_size is known here; without it, repeat_interleave would synchronise with the GPU to find it.
        self._sample(members, logits.repeat_interleave(repeats, dim=0, output_size=len(members)))

    def _borrow(self, groups: list[list[Row]]) -> None:
        """Copy to new rows the longest prefix that a row has cached under the same weights."""
        donors: dict[tuple[int, ...], list[Row]] = {}
        for holder in self._cache.rows():
            if holder.cached >= SHARED_TOKENS:
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
                self._copy(found[lengths.index(length)], [row], length)
                for member in group:
                    member.cached = length

    def _copy(self, source: Row, targets: list[Row], length: int) -> None:
        """Copy the first ``length`` tokens of a row's keys and values to others."""
        for row in targets:
            source.home.copy(source.slot, row.home, row.slot, length)

    @torch.inference_mode()
    def decode(self, rows: list[Row]) -> None:
        """Run the last sampled token of every row, for which there is room, and sample the next."""
        batch, logits = self._decode(rows)
        for row in batch:
            row.cached += 1
        self._sample(batch, logits)

    def _decode(self, rows: list[Row]) -> tuple[list[Row], Tensor]:
        """Run one token of each row; return the rows in the order of the batch, and their logits, [B, V]."""
        pools: dict[Pool, list[Row]] = {}
        for row in rows:
            pools.setdefault(row.home, []).append(row)
        batch: list[Row] = []
        parts: list[Extension | Decoding] = []
        for pool in sorted(pools, key=lambda pool: pool.capacity):
            pool.compact(pools[pool])
            members = sorted(pools[pool], key=lambda row: row.slot)
            lengths = [row.cached for row in members]
            parts.append(
                Decoding(
                    pool=pool,
                    lengths=lengths,
                    tokens=slice(len(batch), len(batch) + len(members)),
                    slots=torch.arange(len(members), device=self.device),
                    positions=self._index(lengths),
                )
            )
            batch += members
        ids, positions = [row.ids[row.cached] for row in batch], [row.cached for row in batch]
        return batch, self._forward(ids, positions, list(range(len(batch))), parts)

    def _run(self, rows: list[Row]) -> Tensor:
        """Run the uncached tokens of each row; return the logits after the last, [B, V]."""
        ids: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        parts: list[Extension | Decoding] = []
        for row in rows:
            new = row.ids[row.cached :]
            tokens = slice(len(ids), len(ids) + len(new))
            parts.append(Extension(pool=row.home, slot=row.slot, start=row.cached, tokens=tokens))
            ids += new
            positions += range(row.cached, len(row.ids))
            last.append(len(ids) - 1)
        return self._forward(ids, positions, last, parts)

    def _forward(
        self, ids: list[int], positions: list[int], wanted: list[int], parts: list[Extension | Decoding]
    ) -> Tensor:
        plan = PassPlan(parts=parts, spans=self._spans)
        return self._view.logits(self._index(ids), self._index(positions), self._index(wanted), plan)

    def _index(self, values: list[int]) -> Tensor:
        return torch.tensor(values).to(self.device, non_blocking=True)

    def _sample(self, rows: list[Row], logits: Tensor) -> None:
        uniform = np.array([row.uniform[len(row.sampled)] for row in rows])
        tokens, logprobs = choose(logits, torch.from_numpy(uniform).to(self.device), [row.params for row in rows])
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.sampled.append(token)
            row.logprobs.append(logprob)
            row.ended = self.ends(row)

    @torch.inference_mode()
    def _prove(self, model: PreTrainedModel) -> int:
        """Check that the model can be run in pieces, because architectures differ in their positions and masks.

        Two rows, run in uneven pieces and then together, must give the logits of a plain forward pass. They are
        longer than the window of any layer, so far as a conversation can be.

        Returns:
            the size of one token's keys and values in bytes.
        """
        windows = [span.size for span in self._spans if span.size]
        length = min(self.capacity, max([_PROOF, *(window + _PROOF for window in windows)]))
        ids = [(7 * i) % model.config.get_text_config().vocab_size for i in range(length)]
        rows = [Row(ids=ids[: max(1, length - 4)]), Row(ids=ids[:2])]
        try:
            expected = model(input_ids=self._index(ids)[None], use_cache=False, logits_to_keep=1).logits[0, -1]
            for row in rows:
                self.reserve(row, length)
            self._run(rows)
            shorter = [row for row in rows if len(row.ids) < length - 1]
            for row in shorter:
                row.cached, row.ids = len(row.ids), ids[: length - 1]
            if shorter:
                self._run(shorter)
            for row in rows:
                row.cached, row.ids = length - 1, ids
            _, found = self._decode(rows)
            gaps = torch.linalg.vector_norm(found - expected, dim=-1)
            gap = gaps.max() / torch.linalg.vector_norm(expected - expected.mean())
            size = rows[0].home.bytes_per_token()
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            raise UserError(f"the in-process engine cannot run a {type(model).__name__}: {error}") from error
        if not gap < _TOLERANCE:
            raise UserError(
                f"the in-process engine cannot run a {type(model).__name__}: with cached keys its logits are "
                f"{float(gap):.0%} off those of a plain forward pass; serve the model over HTTP instead"
            )
        return size


_PROOF = 8
"""Tokens that the proof runs, beyond the longest window."""
_TOLERANCE = 0.1
"""Relative norm. bfloat16 rounding stays below a few per cent; a wrong mask or position gives about 1."""
