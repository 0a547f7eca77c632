"""Killable processes for verifiers that cannot be trusted to return: computer algebra, theorem provers."""

from envgym.workers.pool import WorkerFailedError, WorkerReply, WorkerTimeoutError, shared_pool

__all__ = ["WorkerReply", "WorkerFailedError", "WorkerTimeoutError", "shared_pool"]
