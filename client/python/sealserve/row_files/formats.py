"""Formats of files of rows. A list of options needs them at once: this imports no NumPy."""

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""The format of the files that end so, by its name."""
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
"""The formats of files of rows, by name."""
