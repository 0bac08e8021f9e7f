"""Engines for unmodified encrypted-inference 0.9 clients, in CKKS."""
