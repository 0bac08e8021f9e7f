"""Load on a running service, and what becomes of each request."""
