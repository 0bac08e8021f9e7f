"""sealserve: machine-learning inference on encrypted data.

Begin with `from sealserve.client import Client`.
"""

__version__ = "0.1.0"
