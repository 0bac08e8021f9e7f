"""The scoring of items: admission, single items, the items of streams."""
