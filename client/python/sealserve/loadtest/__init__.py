"""The load test of a running service: items to send, callers, and a ledger of the outcomes."""
