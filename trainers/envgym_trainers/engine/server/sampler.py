"""Completions from a server: asked for, checked, put together again where they were interrupted."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from envgym.errors import EnvgymError
from envgym.seeding import derive_seed
from envgym.web.service import Answer, Undecided
from envgym_trainers.engine.interface import Sampled, SamplingParams, VersionSpan
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import Dialect, FinishReason, LabelSpan, TokenReply, TokenRequest
from envgym_trainers.engine.server.errors import OtherModel, OtherTrainer, ServerFailure, UnfitServer
from envgym_trainers.engine.server.labels import Labels, is_published
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["Sampler"]

_PARTS = 64
"""Times that one completion may be interrupted."""


class Sampler:
    """Asks servers for completions of one model.

    Args:
        dialect: of the servers.
        language_model: whose ids they are.
        labels: the labels of the weights that this engine publishes.
        exact: the label of a completion must be the one that was asked for: with adapters, a request that waited
            while another one was loaded is answered by the old one, under the new label.
    """

    def __init__(self, dialect: Dialect, language_model: LanguageModel, labels: Labels, *, exact: bool) -> None:
        self._dialect = dialect
        self._stop_ids = language_model.stop_ids
        self._known = frozenset(language_model.tokenizer.get_vocab().values())
        self._labels = labels
        self._exact = exact

    async def complete(self, server: Server, ids: Sequence[int], params: SamplingParams, seed: int) -> Sampled:
        """Sample after ``ids`` [T]; arguments and errors otherwise as in ``EngineSession.sample``."""
        await self._revive(server)
        sampled: list[int] = []
        logprobs: list[float] = []
        spans: list[VersionSpan] = []
        for _ in range(_PARTS):
            ask = self._ask(server, [*ids, *sampled], params, seed, done=len(sampled))
            try:
                reply = await self.reply(server, ask)
            except UnfitServer:
                if ask.adapter == server.adapter:
                    raise
                continue  # the adapter was unloaded before the request got there
            versions = self._versions(server, reply)
            if self._exact and any(span.label != ask.label for span in reply.spans):
                continue
            sampled += reply.ids
            logprobs += reply.logprobs
            spans += versions
            if reply.end is not FinishReason.ABORT:
                ended = reply.end is FinishReason.STOP
                return Sampled(ids=sampled, logprobs=logprobs, ended=ended, spans=_merged(spans))
        raise server.failed(f"it aborted a completion {_PARTS} times")

    async def reply(self, server: Server, ask: TokenRequest) -> TokenReply:
        """Return the answer to one request, whoever's weights sampled it.

        Raises:
            ServerFailure: no answer; the message says what the server is at.
            UnfitServer: it cannot be trained against.
        """

        def read(answer: Answer) -> TokenReply:
            reply = self._dialect.read(server, answer)
            self._check(server, ask, reply)
            return reply

        try:
            return await server.generate(self._dialect.body(ask), read)
        except ServerFailure as failure:
            raise await self._diagnosed(server, failure) from None

    def _ask(
        self, server: Server, ids: list[int], params: SamplingParams, seed: int, *, done: int
    ) -> TokenRequest:
        return TokenRequest(
            ids=ids,
            params=dataclasses.replace(params, max_tokens=params.max_tokens - done),
            seed=derive_seed("continued", seed, done) if done else seed,
            stop_ids=self._stop_ids,
            model=server.model,
            adapter=server.adapter,
            label=server.label,
        )

    def _check(self, server: Server, ask: TokenRequest, reply: TokenReply) -> None:
        """Refuse a reply that cannot be one to ``ask``."""
        count, most = len(reply.ids), ask.params.max_tokens
        if unknown := [i for i in reply.ids if i not in self._known]:
            rows = max(self._known)
            if max(unknown) > rows:
                problem = f"it sampled id {max(unknown)}, and the trainer's last is {rows}"
                raise server.unfit_as(OtherModel, problem, "start it with the model of the recipe")
            raise Undecided(f"it sampled id {unknown[0]}, which the tokenizer does not have")
        fault = ""
        if len(reply.logprobs) != count or sum(span.tokens for span in reply.spans) != count:
            fault = "ids, log-probs and weight versions differ in number"
        elif (
            count > most
            or (count < most and reply.end is FinishReason.LENGTH)
            or (not count and reply.end is not FinishReason.ABORT)
        ):
            fault = f"{count} tokens, ended by {reply.end.value!r}, of at most {most}"
        elif reply.end is FinishReason.STOP and reply.ids[-1] not in ask.stop_ids:
            fault = f"it stopped at id {reply.ids[-1]}, which ends no turn"
        elif any(value > 1e-3 for value in reply.logprobs):
            fault = "a log-prob is positive"
        if fault:
            raise Undecided(f"not an answer to the request: {fault}")

    def _versions(self, server: Server, reply: TokenReply) -> list[VersionSpan]:
        """Return which of this engine's weights sampled a reply; refuse what others did."""
        found = []
        for span in reply.spans:
            version = self._labels.version(span.label)
            if not span.tokens:
                continue
            if version is None:
                raise self._foreign(server, span)
            found.append(VersionSpan(version, span.tokens))
        return found

    def _foreign(self, server: Server, span: LabelSpan) -> EnvgymError:
        """Return the error of a server whose weights are not this engine's any more."""
        if is_published(span.label):
            return server.unfit_as(
                OtherTrainer,
                f"another trainer published weights to it, which it calls {span.label!r}",
                "give each trainer servers of its own",
            )
        server.failure = server.failed(
            f"its weights are not those that were published, it calls them {span.label!r}: was it restarted?",
            "; the next weights that are published mend it",
        )
        return server.failure

    async def _revive(self, server: Server) -> None:
        """Look whether a server that was given up is back, with the weights that it had.

        Raises:
            ServerFailure: it is not.
        """
        if server.failure is None:
            return
        try:
            status = await self._dialect.status(server)
        except EnvgymError:
            raise server.failure from None
        if status.asleep or status.paused or status.label != server.label:
            raise server.failure
        server.failure = None

    async def _diagnosed(self, server: Server, failure: ServerFailure) -> ServerFailure:
        """Say of a request that failed what the server is at; give it up where no other would fare better."""
        try:
            status = await self._dialect.status(server)
        except EnvgymError as error:
            server.failure = ServerFailure(f"{failure}; it is down, or not reachable: {error}; start it again")
            return server.failure
        if status.asleep:
            server.failure = server.failed("it is asleep, and lets requests wait", "; wake it: POST /wake_up")
            return server.failure
        if status.paused and not server.updating:
            server.failure = server.failed("it is paused, and lets requests wait", f"; {self._dialect.resume}")
            return server.failure
        return ServerFailure(f"{failure}; it answers otherwise: raise engine.timeout if it is only slow")


def _merged(spans: Sequence[VersionSpan]) -> tuple[VersionSpan, ...]:
    """Return the spans with neighbours of one version made one."""
    runs = itertools.groupby(spans, key=lambda span: span.version)
    return tuple(VersionSpan(version, sum(span.tokens for span in run)) for version, run in runs)
