"""Sparsity: single weights become zero."""
