"""Engines of planned models: exact integer arithmetic on BFV ciphertexts, in both modes."""
