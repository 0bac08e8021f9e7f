"""Batches of rows over streams: a pure schedule, and its threads and tasks."""
