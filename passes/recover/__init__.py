"""Recovery by training: what pruning and quantisation cost is won back (extra `train`)."""
