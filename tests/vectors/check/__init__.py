"""The checker of the vectors: a client that has the protos and the README, and integers.

`python -m tests.vectors.check` reads the files of tests/vectors and fails at the first that is
wrong. It has neither SEAL nor NumPy nor the SDK, except for the code that is generated from the
protos. What a comment of the protos says is written down here once more, in the simplest way.
"""
