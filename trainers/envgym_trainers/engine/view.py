"""A model as the engine runs it: its own modules and weights, with other attention and packed linear layers.

The modules of the view are copies that share every parameter, buffer and hook with the model's. So the engine's
attention and packing touch no pass of the trainer, which must neither see stale packed weights nor lose gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.engine.attention import ATTENTION, PassPlan, current_plan

__all__ = ["ModelView"]

_WORTH_PACKING = 4 * 2**20
"""Weights of linear layers from which packing pays; fewer stay in a processor's cache."""
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that project the same states, as transformers names them."""
_ROWS = 32
"""Rows of the products that the packed layout is chosen for; others run on it as well."""


class ModelView:
    """Runs a model on flat batches.

    On a CPU, the weights of linear layers are packed in the layout of oneDNN's products, which makes
    decoding faster and takes their memory once more; ``renew`` packs them again.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.device = model.device
        self._model: Any = _twin(model, {})
        self._packed = _packable(self._model)

    @property
    def packs(self) -> bool:
        """True if the model is large enough for packing to pay."""
        return bool(self._packed)

    def logits(self, ids: Tensor, positions: Tensor, wanted: Tensor, plan: PassPlan) -> Tensor:
        """Return logits after some of the tokens, [n, V].

        Args:
            ids: int64. [N]
            positions: of each token in its row. [N]
            wanted: ascending places in the batch. [n]
            plan: the rows that the tokens belong to.
        """
        # transformers hands a mask of four dimensions on as it is, and makes none of its own.
        no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        token = current_plan.set(plan)
        try:
            logits: Tensor = self._model(
                input_ids=ids[None],
                attention_mask=no_mask,
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=wanted,
            ).logits[0]
        finally:
            current_plan.reset(token)
        return logits if len(logits) == len(wanted) else logits[wanted]

    def renew(self) -> None:
        """Pack the weights as they are now."""
        for product in self._packed:
            product.pack()

    def rest(self) -> None:
        """Free the packed weights; ``renew`` comes before the next pass."""
        for product in self._packed:
            product.weight = None


class _Product:
    """The forward pass of linear layers that take the same states, whose weights are packed as one.

    A CPU without instructions for bfloat16 takes such products in float32, from a copy of the weight: it would
    convert the weight in every one of them.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self._linears = linears
        own = linears[0].weight.dtype
        self._dtype = torch.float32 if own is torch.bfloat16 and not _has_bfloat16() else own
        self._states: Tensor | None = None
        self._made: dict[nn.Linear, Tensor] = {}
        self.weight: Tensor | None = None
        for linear in linears:
            vars(linear)["forward"] = partial(self._forward, linear)

    @torch.no_grad()
    def pack(self) -> None:
        self.weight = None
        biases: list[Tensor] = [linear.bias for linear in self._linears if linear.bias is not None]
        self._bias = _stack(biases).to(self._dtype) if biases else None
        weight = _stack([linear.weight for linear in self._linears]).to(self._dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    def _forward(self, linear: nn.Linear, states: Tensor) -> Tensor:
        """Return a layer's product; those of its siblings are kept until they are called with these states."""
        if self._states is not states or linear not in self._made:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                states.to(self._dtype), self.weight, self._bias, "none", [], ""
            )
            parts: Sequence[Tensor] = product.to(states.dtype).split(
                [one.out_features for one in self._linears], dim=-1
            )
            self._states, self._made = states, dict(zip(self._linears, parts, strict=True))
        made = self._made.pop(linear)
        if not self._made:
            self._states = None
        return made


def _stack(parts: list[Tensor]) -> Tensor:
    """Return the parts as one, [ΣN, …]; a single one is not copied, as it may be the whole output embedding."""
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).detach()


def _twin(module: nn.Module, known: dict[object, Any]) -> Any:
    """Return a copy of a module's tree that shares everything but the modules and their configurations."""
    if module in known:
        return known[module]
    twin = known[module] = copy.copy(module)
    vars(twin)["_modules"] = {name: part and _twin(part, known) for name, part in module._modules.items()}
    config = vars(module).get("config")
    if hasattr(config, "_attn_implementation"):
        if id(config) not in known:
            known[id(config)] = copy.deepcopy(config)
            known[id(config)]._attn_implementation = ATTENTION
        twin.config = known[id(config)]
    return twin


def _packable(model: nn.Module) -> list[_Product]:
    """Let the linear layers of a view run packed, where it pays; none are packed yet."""
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    ]
    if sum(layer.weight.numel() for layer in layers) < _WORTH_PACKING or not torch.backends.mkldnn.is_available():
        return []
    return [_Product(group) for group in _siblings(model, layers)]


def _siblings(model: nn.Module, layers: list[nn.Linear]) -> list[list[nn.Linear]]:
    """Group the layers that project the same states: one product of a few rows takes less time than several."""
    groups: list[list[nn.Linear]] = []
    left = dict.fromkeys(layers)
    for module in model.modules():
        for names in _TOGETHER:
            group = [part for name in names if (part := getattr(module, name, None)) in left]
            alike = len({(part.in_features, part.weight.dtype, part.bias is None) for part in group}) == 1
            if len(group) == len(names) and alike:
                groups.append(group)
                for part in group:
                    del left[part]
    return groups + [[layer] for layer in left]


def _has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16 itself."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
