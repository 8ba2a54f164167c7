"""Numba kernels, each with a NumPy twin that specifies it."""
