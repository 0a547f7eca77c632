"""Engines behind an inference server: token ids over HTTP, one module for each dialect."""
