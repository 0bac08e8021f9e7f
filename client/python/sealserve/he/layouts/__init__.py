"""Layouts: how rows, features and scores lie in ciphertexts."""
