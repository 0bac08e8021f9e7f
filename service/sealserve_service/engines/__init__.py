"""Engines: the encrypted arithmetic, one file a layout, all behind the interface of `base`."""
