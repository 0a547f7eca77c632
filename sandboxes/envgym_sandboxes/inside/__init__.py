"""The program that serves requests inside a sandbox; see ``envgym_sandboxes.inside.runner``.

Its modules import only the standard library, each other and ``envgym.sandbox.source_file``, which imports no more:
they travel as source text (``runner_command``).
"""
