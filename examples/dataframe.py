"""A DataFrame in, labels out: a column of labels for a file of rows, and a word on the rest.

    python examples/dataframe.py rows.csv labeled.csv

A row that is refused, for example because a value is missing, has no label. The others have one.
"""

import os
import sys

import pandas as pd

from sealserve import Client
from sealserve.errors import SealserveError

rows = pd.read_csv(sys.argv[1])
with Client(os.environ.get("SEALSERVE_ADDRESS", "127.0.0.1:50051"), model="tumors") as client:
    results = client.predict(rows, errors="return")

for number, result in enumerate(results):
    if isinstance(result, SealserveError):
        print(f"row {number}: {result}")
labels = [pd.NA if isinstance(result, SealserveError) else result for result in results]
rows.assign(label=pd.array(labels, "Int64")).to_csv(sys.argv[2], index=False)
print(f"{sum(label is not pd.NA for label in labels)} of {len(rows)} rows have a label")
