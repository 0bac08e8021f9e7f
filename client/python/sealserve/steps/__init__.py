"""The published part of a model: steps that turn columns into features, interpreted with NumPy."""
