"""The sandbox backends that ship with envgym, one module or package each."""
