"""Models: model files and scikit-learn estimators -> linear models.

`loading` says how to add a file format, `folding` where the rules of estimators are, and
`affine_steps` how to add a step before one.
"""
