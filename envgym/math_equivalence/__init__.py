"""Decide whether two mathematical answers are equal: exactly where possible, in killable workers elsewhere."""
