"""Catalog: the models that are served, kept in step with their files."""
