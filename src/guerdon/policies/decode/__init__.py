"""Sampling from causal models: the draw, the memory of a batch, three decoders, and the loop that keeps a batch full."""
