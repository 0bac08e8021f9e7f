"""The sealserve service: scores scikit-learn models on ciphertexts it cannot read."""
