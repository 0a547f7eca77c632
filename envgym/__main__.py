"""``python -m envgym``, and so ``torchrun -m envgym``: the command line."""

from envgym.cli import main

main()
