"""Warmup: is it enough to warm up the deep layers, and is it needed."""
