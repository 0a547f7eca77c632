"""An environment for envgym, in a distribution of its own."""
