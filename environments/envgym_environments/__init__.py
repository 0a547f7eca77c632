"""The environments that ship with envgym, one module or package each."""
