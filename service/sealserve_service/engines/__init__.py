"""Engines: one for each layout. An engine scores encrypted items with a model made ready for it."""
