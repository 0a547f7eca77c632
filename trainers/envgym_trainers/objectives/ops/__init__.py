"""Pieces that objectives are made of."""
