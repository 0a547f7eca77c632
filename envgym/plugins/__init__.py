"""Plugins: their common base, and the registries that find them by name."""
