"""The RPCs of each service: who calls, which model or key, messages in, messages out."""
