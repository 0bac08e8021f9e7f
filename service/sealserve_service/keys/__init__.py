"""Registered public and evaluation keys."""
