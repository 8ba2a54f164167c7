"""Structured pruning: channel labels as an abstract interpretation of the graph, groups, importance, removal, proof."""
