"""From a training script to a served model, checked on rows that it was not trained with.

    python examples/train_and_serve.py [FOLDER]

It trains on scikit-learn's breast cancer data, writes the model and two files of rows into the
folder, and becomes `sealserve serve`. Variables give options to the service, such as
SEALSERVE_ADDRESS.
"""

import os
import sys
from pathlib import Path

import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_rest, y_train, _ = train_test_split(X, y, train_size=269, random_state=0)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)

skops.io.dump(model, folder / "tumors.skops")
X_rest[:200].to_csv(folder / "calibration.csv", index=False)  # 200 or more, for the verdict
X_rest[200:].to_csv(folder / "rows.csv", index=False)  # what clients will ask about

options = ["--model", f"tumors={folder / 'tumors.skops'}", "--calibration", str(folder / "calibration.csv")]
os.execv(sys.executable, [sys.executable, "-m", "sealserve", "serve", *options])  # noqa: S606  # our own program
