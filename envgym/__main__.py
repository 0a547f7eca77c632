"""``python -m envgym``, and so ``torchrun -m envgym``: the command line."""

from envgym.cli import main

if __name__ == "__main__":
    main()
