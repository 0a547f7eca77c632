"""Equivalence of mathematical answers: exact arithmetic where possible, killable worker processes elsewhere."""
