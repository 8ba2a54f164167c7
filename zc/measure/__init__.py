"""Measures: what a model costs, how accurate and how fast it is, and how far two tensors are apart."""
