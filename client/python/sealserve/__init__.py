"""sealserve: machine-learning inference on encrypted data. `from sealserve.client import Client` to begin."""

__version__ = "0.1.0"
