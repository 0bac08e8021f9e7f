"""Models: model files and scikit-learn estimators -> linear models.

`loading` says how to add a file format, `estimators` how to add an estimator, and `affine` how to
add a step before one.
"""
