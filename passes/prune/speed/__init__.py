"""How long a model takes as its groups get narrower: by the target's table, corrected by what was measured."""
