"""Quantisation: from float weights and activations to 8-bit integers."""
