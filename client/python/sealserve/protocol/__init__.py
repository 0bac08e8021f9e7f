"""The protocol between client and service, without gRPC: models, items, keys and addresses."""
