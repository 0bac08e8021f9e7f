"""The agent: takes plaintext from this machine, asks a service encrypted, and answers."""
