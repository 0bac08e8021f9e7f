"""Calls of the service over gRPC: channels, connections, retries, and status codes as errors."""
