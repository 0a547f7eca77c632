"""A key-value cache with one row per open conversation, each at its own length."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from envgym.errors import UserError

__all__ = ["SlotCache"]


class SlotCache(Cache):
    """Keys and values of ``slots`` conversations, [slots, heads, capacity, head size] per layer.

    Before each forward pass ``place`` says which rows the batch is and where its tokens go. Rows ``0..n-1`` are
    read as a view, so a decoding step copies no keys; any other set of rows is gathered.

    Raises:
        UserError: the model has layers that do not attend to the whole past.
    """

    def __init__(
        self, config: PreTrainedConfig, slots: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        text = config.get_text_config()
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            other = ", ".join(sorted(kinds - {"full_attention"}))
            raise UserError(f"the in-process engine needs full attention in every layer; this model has {other}")
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = (slots, heads, capacity, size)
        self._layers = [_SlotLayer(self, shape, dtype, device) for _ in range(text.num_hidden_layers)]
        super().__init__(layers=list(self._layers))
        self.slots = slots
        self.capacity = capacity
        self.rows = torch.empty(0, dtype=torch.long)
        self.contiguous = False
        self.positions = torch.empty(0, 0, dtype=torch.long)
        self.visible = 0

    def place(
        self, rows: torch.Tensor, positions: torch.Tensor, *, visible: int, contiguous: bool
    ) -> torch.Tensor:
        """Declare the next forward pass.

        Args:
            rows: which conversations the batch is. [B]
            positions: where each of its tokens goes; padding goes to ``capacity - 1``. [B, Q]
            visible: length of the longest row, the new tokens included.
            contiguous: ``rows`` is ``0..B-1``.

        Returns:
            the attention mask, True where a token may look. [B, 1, Q, visible]
        """
        self.rows, self.contiguous = rows, contiguous
        self.positions, self.visible = positions, visible
        keys = torch.arange(self.visible, device=positions.device)
        return (keys <= self.positions[:, :, None])[:, None]

    def share(self, source: int, targets: list[int], length: int) -> None:
        """Copy the first ``length`` tokens of row ``source`` to the rows ``targets``."""
        index = torch.tensor(targets, device=self.rows.device)
        for layer in self._layers:
            for stored in layer.stored:
                stored[index, :, :length] = stored[source, :, :length]


class _SlotLayer(CacheLayerMixin):
    """One layer's storage; where to write and what to read is the owner's."""

    def __init__(self, owner: SlotCache, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owner = owner
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.stored = (self.keys, self.values)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens, [B, heads, Q, size], and return everything visible to them."""
        owner = self._owner
        where = (owner.rows[:, None], slice(None), owner.positions)
        keys, values = self.stored
        keys[where] = key_states.transpose(1, 2)
        values[where] = value_states.transpose(1, 2)
        rows: Any = slice(0, len(owner.rows)) if owner.contiguous else owner.rows
        return keys[rows, :, : owner.visible], values[rows, :, : owner.visible]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: storage is made with the cache."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the visible keys."""
        return self._owner.visible, 0

    def get_seq_length(self) -> int:
        """Length of the longest row in the current batch."""
        return self._owner.visible

    def get_max_length(self) -> int:
        """Tokens that a row can hold."""
        return self._owner.capacity
