"""Weighted layers as matrix products: what they read, normal equations, and runs in steps. For several passes."""
