"""What runs inside vLLM: a weight transfer that reads published weights from a file.

``pip install --no-deps envgym`` into vLLM's environment is enough: vLLM calls ``register`` in each of its
processes, through the entry point ``vllm.general_plugins``, and nothing else of envgym is imported there. It is
chosen with ``--weight-transfer-config '{"backend": "envgym_disk"}'``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKEND", "register"]

BACKEND = "envgym_disk"
"""Name of the transfer in vLLM's configuration."""

_ENGINE = "DiskEngine"


def register() -> None:
    """Offer the transfer to vLLM, which imports its class only where it is chosen."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with contextlib.suppress(ValueError):  # vLLM may call this again in a process
        WeightTransferEngineFactory.register_engine(BACKEND, __name__, _ENGINE)


def __getattr__(name: str) -> Any:
    if name == _ENGINE:
        return _disk_engine()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _disk_engine() -> type[Any]:
    """Return the engine's class, whose bases exist only inside vLLM."""
    from safetensors import safe_open
    from vllm.distributed.weight_transfer import base
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class Init(base.WeightTransferInitInfo):  # type: ignore[misc]
        """Nothing is agreed on beforehand."""

    @dataclass
    class Update(base.WeightTransferUpdateInfo):  # type: ignore[misc]
        """One file of weights in the names of the checkpoint."""

        file: str

    class DiskEngine(base.WeightTransferEngine[Init, Update]):  # type: ignore[misc]
        init_info_cls, update_info_cls = Init, Update

        def init_transfer_engine(self, init_info: Init) -> None:
            pass

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def receive_weights(self, update_info: Update) -> None:
            with safe_open(update_info.file, framework="pt") as tensors:
                self.model.load_weights((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            pass

    return DiskEngine
