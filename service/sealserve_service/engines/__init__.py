"""Engines: one a layout; each scores encrypted items with a model that is made ready for it."""
