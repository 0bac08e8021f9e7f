"""The maker of the vectors: `python -m tests.vectors.make` writes all files of tests/vectors.

Keys and ciphertexts are made here, of fixed randomness, so that they are the same each time. SEAL
has to read them: a real service takes the requests and answers them, and the SDK decrypts its
replies. What they give is what the files expect. Only replies with private weights are others each
time, because a service draws the randomness that hides its weights.
"""
