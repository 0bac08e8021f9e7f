"""Key stores: one protocol, and one file for each kind of store."""
