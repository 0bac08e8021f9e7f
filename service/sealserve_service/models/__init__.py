"""Models: model files and scikit-learn estimators -> linear models."""
