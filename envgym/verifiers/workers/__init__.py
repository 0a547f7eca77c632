"""Killable processes for verifiers that cannot be trusted to return: computer algebra, theorem provers."""

from envgym.verifiers.workers.pool import Reply, WorkerFailedError, WorkerTimeoutError, shared_pool

__all__ = ["Reply", "WorkerFailedError", "WorkerTimeoutError", "shared_pool"]
