"""The environments that ship with envgym, one package each."""
