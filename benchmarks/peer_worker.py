"""A peer of `make bench`, in a process and an environment of its own.

`python peer_worker.py PEER MODEL.npz` reads rows (rows, features) from rows.npy beside the file.
From the file, a peer of a linear model reads weights (classes, features) and intercept (classes,).
A peer that trains a model of its own reads X (rows, features), y (rows,) and the labels test_y of
the rows. The script prints a line of JSON when it is ready. Each line of its input is the index of
a row; it answers with a line of JSON that says what scoring the row took. It imports nothing of
ours, because the environment has only the peer's packages.

Client and server are one process, without a network between them: what they send is serialized and
read again. Every peer has one thread and parameters of 128 bits of security. Times are the
processor's. With one thread they are those of a machine that has nothing else to do, even where a
row takes seconds and other processes run in between.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS")
os.environ |= dict.fromkeys(_THREADS, "1")  # before they are imported

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

Row = NDArray[np.float64]
Took = dict[str, Any]
# Sizes of Concrete ML's own examples: with 100 trees a row takes seconds.
_TREES = {"n_bits": 6, "n_estimators": 50, "max_depth": 4}
# With 4 bits and 120 hidden neurons a layer, the defaults, keys take 7 GB, and minutes to generate.
_NETWORK = {
    "module__n_layers": 3,
    "module__n_hidden_neurons_multiplier": 1,
    "module__n_w_bits": 3,
    "module__n_a_bits": 3,
    "max_epochs": 30,
    "verbose": 0,
}


def took(times: list[float], request_bytes: int, reply_bytes: int, scores: Any) -> Took:
    """Say what a row took: processor seconds of each step, bytes, and its scores."""
    encrypt, server, decrypt = np.diff(times).tolist()
    return {
        "encrypt": encrypt,
        "server": server,
        "decrypt": decrypt,
        "request_bytes": request_bytes,
        "reply_bytes": reply_bytes,
        "scores": np.asarray(scores, np.float64).ravel().tolist(),
    }


class EncryptedInference:
    """encrypted-inference 0.9: the client and the server of the Azure ML guide."""

    package = "encrypted-inference"
    parameters = "CKKS, N = 8192, primes of 60, 40, 40 and 60 bits, scale 2^40: the package's own"

    def __init__(self, weights: Row, intercept: Row, rows: Row) -> None:
        from encrypted.inference.eiclient import EILinearRegressionClient
        from encrypted.inference.eiserver import EIServer

        self._client = EILinearRegressionClient()
        self._server = EIServer(weights, intercept)
        self._keys = self._client.get_public_keys()[1]
        self.key_bytes = len(self._keys)

    def score(self, row: Row) -> Took:
        """Score a row."""
        times = [time.process_time()]
        request = self._client.encrypt(row)
        times.append(time.process_time())
        reply = self._server.predict(request, self._keys)
        times.append(time.process_time())
        scores = self._client.decrypt(reply)
        times.append(time.process_time())
        up, down = (sum(len(base64.b64decode(text)) for text in texts) for texts in (request, reply))
        return took(times, up, down, scores)


class TenSEAL:
    """TenSEAL's CKKS vectors, with one level for one product.

    N is the smallest that keeps every label.

    Args:
        product: multiplies an encrypted vector with the plaintext weights:
            (vector, weights) -> encrypted vectors.
    """

    package = "tenseal"
    parameters = "CKKS, N = 4096, primes of 38, 30 and 38 bits, scale 2^30"

    def __init__(
        self, weights: Row, intercept: Row, rows: Row, *, product: Callable[[Any, Row, Row], list[Any]]
    ) -> None:
        import tenseal as ts

        self._ts, self._weights, self._intercept, self._product = ts, weights, intercept, product
        self._own = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[38, 30, 38], n_threads=1)
        self._own.global_scale = 2**30
        self._own.generate_galois_keys()
        public = self._own.serialize(save_secret_key=False, save_relin_keys=False)
        self.key_bytes = len(public)
        self._servers = ts.context_from(public, 1)  # kept, as a server would that gets its keys once

    def score(self, row: Row) -> Took:
        """Score a row."""
        times = [time.process_time()]
        request = self._ts.ckks_vector(self._own, row).serialize()
        times.append(time.process_time())
        vector = self._ts.ckks_vector_from(self._servers, request)
        reply = [result.serialize() for result in self._product(vector, self._weights, self._intercept)]
        times.append(time.process_time())
        scores = [self._ts.ckks_vector_from(self._own, data).decrypt() for data in reply]
        times.append(time.process_time())
        return took(times, len(request), sum(map(len, reply)), np.concatenate(scores))


def _by_matrix(vector: Any, weights: Row, intercept: Row) -> list[Any]:
    return [vector.mm(weights.T.tolist()) + intercept.tolist()]


def _by_class(vector: Any, weights: Row, intercept: Row) -> list[Any]:
    # A sum of vectors: what is added is encoded.
    return [vector.dot(w.tolist()) + [b] for w, b in zip(weights, intercept.tolist(), strict=True)]  # noqa: RUF005


class ConcreteCircuit:
    """A compiled model of Concrete ML.

    Args:
        model: fitted.
        rows: the rows to compile it for.
    """

    package = "concrete-ml"

    def __init__(self, model: Any, rows: NDArray[np.floating[Any]], parameters: str) -> None:
        from concrete.fhe import Value

        self.parameters = f"TFHE, {parameters}, as its compiler chooses"
        self._value, self._model = Value, model
        self._model.compile(rows)
        self._circuit = self._model.fhe_circuit
        self._circuit.keygen()
        self.key_bytes = len(self._circuit.client.evaluation_keys.serialize())

    def score(self, row: Row) -> Took:
        """Score a row."""
        times = [time.process_time()]
        request = self._circuit.encrypt(self._model.quantize_input(row[None])).serialize()
        times.append(time.process_time())
        reply = self._circuit.run(self._value.deserialize(request)).serialize()
        times.append(time.process_time())
        outputs = self._model.dequantize_output(self._circuit.decrypt(self._value.deserialize(reply)))
        scores = self._scores(outputs)
        times.append(time.process_time())
        return took(times, len(request), len(reply), scores)

    def _scores(self, outputs: Row) -> Any:
        return outputs


class ConcreteML(ConcreteCircuit):
    """Concrete ML's LogisticRegression on TFHE, with 8 bits, compiled for the first 500 rows."""

    def __init__(self, weights: Row, intercept: Row, rows: Row) -> None:
        from concrete.ml.sklearn import LogisticRegression

        some = np.array(rows[:500])
        model = LogisticRegression.from_sklearn_model(_estimator(weights, intercept), some, n_bits=8)
        super().__init__(model, some, "8 bits")


class ConcreteClassifier(ConcreteCircuit):
    """A classifier that Concrete ML trains, compiled for the first 500 rows.

    Scores are probabilities. Trees are summed in plaintext after decryption, as is its default.

    Args:
        name: the class of `concrete.ml.sklearn`.
        said: the arguments of this class.
        X, y: the training rows, and their labels.
        rows, test_y: the rows that are scored, and their labels. A network takes float32.
    """

    def __init__(self, name: str, said: dict[str, Any], X: Row, y: Row, test_y: Row, rows: Row) -> None:
        from concrete.ml import sklearn

        is_network = name == "NeuralNetClassifier"
        self._type = np.float32 if is_network else np.float64
        model = getattr(sklearn, name)(**said)
        model.fit(X.astype(self._type), y.astype(np.int64))
        words = ", ".join(f"{key.removeprefix('module__')}={value}" for key, value in said.items() if key != "verbose")
        super().__init__(model, X[:500].astype(self._type), words)
        # The integers of the plaintext model are those of the circuit.
        self.accuracy = float(np.mean(model.predict(np.array(rows, self._type)) == test_y))

    def score(self, row: Row) -> Took:
        """Score a row."""
        return super().score(row.astype(self._type))

    def _scores(self, outputs: Row) -> Any:
        return self._model.post_processing(outputs)


class ScikitLearn:
    """scikit-learn in plaintext."""

    package = "scikit-learn"
    parameters = "float64"
    key_bytes = 0

    def __init__(self, weights: Row, intercept: Row, rows: Row) -> None:
        self._estimator = _estimator(weights, intercept)

    def score(self, row: Row) -> Took:
        """Score a row."""
        start = time.process_time()
        scores = self._estimator.decision_function(row[None])
        end = time.process_time()
        return took([start, start, end, end], 0, 0, scores)


def _estimator(weights: Row, intercept: Row) -> Any:
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression()
    estimator.classes_ = np.arange(len(weights))
    estimator.coef_, estimator.intercept_, estimator.n_features_in_ = weights, intercept, weights.shape[1]
    return estimator


PEERS: dict[str, Callable[..., Any]] = {
    "encrypted-inference": EncryptedInference,
    "tenseal-mm": partial(TenSEAL, product=_by_matrix),
    "tenseal-dot": partial(TenSEAL, product=_by_class),
    "concrete-ml": ConcreteML,
    "concrete-ml-xgboost": partial(ConcreteClassifier, "XGBClassifier", {**_TREES, "n_jobs": 1}),
    "concrete-ml-forest": partial(ConcreteClassifier, "RandomForestClassifier", _TREES),
    "concrete-ml-network": partial(ConcreteClassifier, "NeuralNetClassifier", _NETWORK),
    "scikit-learn": ScikitLearn,
}


def main() -> None:
    """Score each row whose index comes on stdin."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    name, path = sys.argv[1:]
    with np.load(path) as arrays:
        given = {key: np.ascontiguousarray(arrays[key]) for key in arrays.files}
    rows = np.load(Path(path).with_name("rows.npy"), mmap_mode="r")  # else they would count as its memory
    peer = PEERS[name](**given, rows=rows)
    said = f"{peer.package} {version(peer.package)}"
    ready = {"key_bytes": peer.key_bytes, "version": said, "parameters": peer.parameters}
    ready["accuracy"] = getattr(peer, "accuracy", None)
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(peer.score(np.array(rows[int(line)]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
