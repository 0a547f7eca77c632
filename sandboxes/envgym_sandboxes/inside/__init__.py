"""The program that serves requests inside a sandbox; see ``envgym_sandboxes.inside.runner``.

Its modules import only the standard library and each other: they travel as source text (``runner_command``).
"""
