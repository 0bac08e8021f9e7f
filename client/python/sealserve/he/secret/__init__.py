"""Encryption and decryption with a secret key. A serving process never loads this package."""
