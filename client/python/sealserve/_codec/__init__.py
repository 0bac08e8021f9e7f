"""Rows to encrypted items and replies to scores. Performs no I/O."""
