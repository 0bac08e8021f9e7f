"""The codec: rows to encrypted items, and replies to scores. It does not use the network."""
