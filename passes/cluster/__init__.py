"""Shared weights: a codebook of a few numbers, and an index for each weight."""
