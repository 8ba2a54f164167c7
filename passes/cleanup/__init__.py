"""Clean-up passes: exact rewrites that leave fewer nodes, weights and names."""
