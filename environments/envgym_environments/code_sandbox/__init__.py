"""Write a Python function, try it on visible tests, submit it; hidden tests decide, outside the sandbox."""

from envgym_environments.code_sandbox.env import CodeSandbox

__all__ = ["CodeSandbox"]
