"""Programming tasks: write a Python function, try visible tests, submit it; hidden tests decide."""

from envgym_environments.code_sandbox.env import CodeSandbox

__all__ = ["CodeSandbox"]
