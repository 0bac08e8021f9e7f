"""Streams of batches of rows: a pure schedule, and the threads or tasks that follow it."""
