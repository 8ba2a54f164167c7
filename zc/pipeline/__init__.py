"""Passes as values: what they are, their text form, where they come from, and the manager that runs them."""
