"""Planning: from a model and its input grid to encryption parameters."""
