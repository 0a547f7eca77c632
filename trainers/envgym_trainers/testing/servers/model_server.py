"""A server of one small model: what is sampled, and the requests around it. Dialects derive from it."""

from __future__ import annotations

import abc
import copy
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file

from envgym.optional_packages import require
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.testing.servers.serving import HttpReply, HttpServer

__all__ = ["ModelCompletion", "ModelServer"]


@dataclass(slots=True, kw_only=True)
class ModelCompletion:
    """What was sampled for one request."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """Label of the weights that sampled each id."""
    end: str = "length"

    def spans(self) -> list[dict[str, Any]]:
        """Return the labels as both dialects write them."""
        spans: list[dict[str, Any]] = []
        for label, run in itertools.groupby(self.labels):
            start = spans[-1]["end"] if spans else 0
            spans.append({"version": label, "start": start, "end": start + len(list(run))})
        return spans


class ModelServer(abc.ABC):
    """Serves a copy of a model on the loopback address while its context lasts.

    Every token is one forward pass over all ids, without a cache, so that log-probs are exact and new weights
    count at once.

    Args:
        language_model: the model to serve; it is copied.
        port: where it listens; 0 is a free one.
    """

    def __init__(self, language_model: LanguageModel, port: int = 0) -> None:
        self.context = language_model.context
        self.name = "served"
        self.label = "default"
        self.paused = self.asleep = False
        self.seen: list[tuple[str, Any]] = []
        """Path, query included, and body of every request."""
        self.intercept: Callable[[str, Any], HttpReply | None] = lambda path, body: None
        """Answers in the server's place, for what it returns no ``None``; called with path and body."""
        self._base: Any = copy.deepcopy(language_model.model)
        self._adapters: dict[str, Any] = {}
        self._condition = threading.Condition()
        self._aborts = 0
        self._stopped = False
        self._http = HttpServer(self._answer, port)

    @property
    def url(self) -> str:
        """Its address."""
        return self._http.url

    @property
    def authorizations(self) -> set[str]:
        """Authorization headers of the requests so far; ``""`` stands for none."""
        return self._http.authorizations

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server, as a kill does: whoever waits for an answer gets none. Safe to call twice."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._http.stop()

    @abc.abstractmethod
    def routes(self) -> Mapping[str, Callable[[Mapping[str, str], Any], Any]]:
        """Return what answers each ``"METHOD /path"``, from query and body: JSON, or an ``HttpReply``."""

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the weights; tensors that share memory may be left out."""
        with self._condition:
            self._base.load_state_dict(tensors, strict=False)

    def load_file(self, file: str | Path) -> None:
        """Replace the weights with those of a file."""
        self.load(load_file(file))

    def add_adapter(self, name: str, folder: str) -> None:
        """Load an adapter under a name."""
        peft = require("peft", "an adapter")
        made = peft.PeftModel.from_pretrained(copy.deepcopy(self._base), folder).eval()
        with self._condition:
            self._adapters[name] = made

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter; what samples from it goes on."""
        self._adapters.pop(name)

    @property
    def names(self) -> list[str]:
        """Names that a request may ask for."""
        return [self.name, *self._adapters]

    def pause(self, *, abort: bool) -> None:
        """Stop sampling; end what is under way if ``abort``."""
        with self._condition:
            self.paused = True
            self._aborts += abort
            self._condition.notify_all()

    def resume(self) -> None:
        """Sample again."""
        with self._condition:
            self.paused = False
            self._condition.notify_all()

    @torch.no_grad()
    def sample(
        self, ids: list[int], *, name: str, temperature: float, max_tokens: int, seed: int, stop_ids: list[int]
    ) -> ModelCompletion:
        """Sample token by token; pauses and new weights come in between.

        Raises:
            KeyError: there is no model of that name.
        """
        model = self._adapters[name] if name and name != self.name else self._base
        generator = torch.Generator().manual_seed(seed)
        made, aborts = ModelCompletion(), self._aborts
        while len(made.ids) < max_tokens:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or self._aborts > aborts or not self._waits())
                if self._stopped or self._aborts > aborts:
                    made.end = "abort"
                    return made
                logits = model(input_ids=torch.tensor([ids + made.ids]), use_cache=False).logits[0, -1].float()
                label = self.label
            row = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
            drawn = torch.multinomial(row.exp(), 1, generator=generator) if temperature else row.argmax()
            made.ids.append(int(drawn))
            made.logprobs.append(float(row[int(drawn)]))
            made.labels.append(label)
            if made.ids[-1] in stop_ids:
                made.end = "stop"
                return made
        return made

    def _waits(self) -> bool:
        return self.paused or self.asleep

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> HttpReply:
        whole = path + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
        self.seen.append((whole, body))
        instead = self.intercept(path, body)
        if instead is not None:
            return instead
        routes = self.routes()
        route = routes.get(f"{method} {path}")
        if route is None:
            known = any(name.endswith(f" {path}") for name in routes)
            return (
                HttpReply({"detail": "Method Not Allowed"}, 405)
                if known
                else HttpReply({"detail": "Not Found"}, 404)
            )
        found = route(query, body)
        return found if isinstance(found, HttpReply) else HttpReply(found)
