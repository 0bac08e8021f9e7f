"""Metrics, and the record of each call."""
