"""The program that stands inside a sandbox; see ``envgym_sandboxes.inside.runner``.

Its modules import the standard library and each other only: they travel as source text (``environment``).
"""
