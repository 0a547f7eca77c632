"""Killable worker processes for verifiers that may not return: computer algebra, theorem provers."""

from envgym.workers.pool import WorkerFailedError, WorkerReply, WorkerTimeoutError, shared_pool

__all__ = ["WorkerReply", "WorkerFailedError", "WorkerTimeoutError", "shared_pool"]
