"""Serving processes, their supervisor, signals and the log."""
