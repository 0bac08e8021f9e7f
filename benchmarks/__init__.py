"""The benchmark program: `python -m benchmarks --help`.

`python -m benchmarks` runs the parts, each a module of this package. `python -m benchmarks.publish`
puts their results into README and docs. `python -m benchmarks.walk` counts the calls of one
prediction.

The servers, clients and data that benchmarks share with the tests are in `tests.support`.
Benchmarks import nothing else of `tests`, and `tests.support` imports nothing of them.
"""
