"""Metrics and the log line of each call."""
