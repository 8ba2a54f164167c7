"""Tailoring: the same numbers, written as the target runs them fastest."""
