"""Models: one file a format, one for folding estimators into weights, one for the registry of what is served."""
