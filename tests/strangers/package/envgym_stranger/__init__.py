"""One plugin of every kind, each in a module of its own."""
