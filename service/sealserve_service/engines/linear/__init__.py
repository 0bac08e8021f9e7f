"""Engines for planned linear models in exact integers (BFV)."""
