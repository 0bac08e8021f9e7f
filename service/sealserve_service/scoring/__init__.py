"""Scoring of items: the admission of work, single items, and the items of streams."""
