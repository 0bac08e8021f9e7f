"""What client and service say to each other, without gRPC: models, items, keys, addresses."""
