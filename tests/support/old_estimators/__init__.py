"""Estimators of older scikit-learns, as files, with what they predicted there; `make` made them."""
