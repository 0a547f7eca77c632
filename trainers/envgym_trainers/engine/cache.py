"""A key-value cache with one row per open conversation, each at its own length."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from envgym.errors import UserError
from envgym_trainers.models.attention import partial_attention

__all__ = ["SlotCache"]


class SlotCache(Cache):
    """Keys and values of ``slots`` conversations, [slots, heads, capacity, head size] per layer.

    Before each forward pass ``place`` sets the batch's rows and the positions of its tokens. Rows ``0..n-1`` are
    read as a view, so that a decoding step copies no keys; any other set of rows is gathered.

    Args:
        config: configuration of the model.
        slots: number of rows, each held by one conversation.
        capacity: tokens that a row can hold. One more cell takes the padding, which is written but never read, so
            that rows of any length fit one rectangular batch.

    Raises:
        UserError: the model has layers that do not attend to the whole past.
    """

    def __init__(self, config: PreTrainedConfig, slots: int, capacity: int) -> None:
        _refuse_partial_attention(config, capacity)
        self._layers = [_SlotLayer(self) for _ in range(config.get_text_config().num_hidden_layers)]
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
            rows: the cache row of each sequence in the batch. [B]
            positions: the cell of each token; padding goes to ``capacity``. [B, Q]
            visible: length of the longest row, the new tokens included.
            contiguous: true if ``rows`` is ``0..B-1``.

        Returns:
            the attention mask, True where a token may attend. [B, 1, Q, visible]
        """
        self.rows, self.contiguous = rows, contiguous
        self.positions, self.visible = positions, visible
        keys = torch.arange(self.visible, device=positions.device)
        return (keys <= self.positions[:, :, None])[:, None]

    def share(self, source: int, targets: list[int], length: int) -> None:
        """Copy the first ``length`` tokens of row ``source`` to the rows ``targets``."""
        index = torch.tensor(targets, device=self.rows.device)
        for layer in self._layers:
            for stored in (layer.keys, layer.values):
                stored[index, :, :length] = stored[source, :, :length]

    def swap(self, first: list[int], second: list[int], length: int) -> None:
        """Exchange the first ``length`` tokens of the rows ``first`` with those of ``second``, pair by pair."""
        to = torch.tensor(first + second, device=self.rows.device)
        source = torch.tensor(second + first, device=self.rows.device)
        for layer in self._layers:
            for stored in (layer.keys, layer.values):
                stored[to, :, :length] = stored[source, :, :length]


def _refuse_partial_attention(config: PreTrainedConfig, capacity: int) -> None:
    """Refuse layers that attend to part of the past. A window as long as a conversation hides nothing."""
    found = partial_attention(config)
    other = [kind for kind, window in found.items() if not window]
    if other:
        raise UserError(f"the in-process engine needs attention in every layer; this model has {', '.join(other)}")
    for name, window in found.items():
        if window < capacity:
            raise UserError(
                f"the in-process engine needs full attention; this model looks back {window} tokens ({name}): "
                f"set model.context to at most {window}"
            )


class _SlotLayer(CacheLayerMixin):
    """One layer's storage; the owner decides where to write and what to read."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owner = owner

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens, [B, heads, Q, size], and return everything visible to them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        owner = self._owner
        where = (owner.rows[:, None], slice(None), owner.positions)
        self.keys[where] = key_states.transpose(1, 2)
        self.values[where] = value_states.transpose(1, 2)
        rows: Any = slice(0, len(owner.rows)) if owner.contiguous else owner.rows
        return self.keys[rows, :, : owner.visible], self.values[rows, :, : owner.visible]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the storage; the first states give the number of heads, their size, dtype and device."""
        owner = self._owner
        self.keys, self.values = (
            torch.zeros(
                (owner.slots, states.shape[1], owner.capacity + 1, states.shape[3]),
                dtype=states.dtype,
                device=states.device,
            )
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the visible keys."""
        return self._owner.visible, 0

    def get_seq_length(self) -> int:
        """Return the length of the longest row in the current batch."""
        return self._owner.visible

    def get_max_length(self) -> int:
        """Return the number of tokens that a row can hold."""
        return self._owner.capacity
