"""Registered public and evaluation keys, and the stores that keep them."""
