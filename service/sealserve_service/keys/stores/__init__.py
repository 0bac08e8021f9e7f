"""Where registered keys are kept: one small protocol, one file a place."""
