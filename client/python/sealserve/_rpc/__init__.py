"""Channels, connections, retries, and gRPC status codes as typed errors."""
