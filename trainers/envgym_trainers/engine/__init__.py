"""The in-process engine: samples for many conversations at once with any full-attention causal LM."""
