"""A program for an environment with tritonclient: it asks an agent, and saves what comes back.

    python triton_caller.py KIND PLACE TOKEN INPUTS OUTPUTS

KIND is grpc, http or json. INPUTS is an .npz file of a model's tensors, by MODEL/NAME; OUTPUTS gets
what the agent returns, by MODEL/OUTPUT.
"""

import sys
from collections import defaultdict
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

OUTPUTS = ("label", "score", "probability")


def main() -> None:
    """Ask for all rows of each model at once."""
    kind, place, token, inputs, outputs = sys.argv[1:]
    module: Any = tritonclient.grpc if kind == "grpc" else tritonclient.http
    client = module.InferenceServerClient(place)
    headers = {"authorization": f"Bearer {token}"}
    assert client.is_server_live(headers=dict(headers))
    assert client.is_server_ready(headers=dict(headers))
    assert not client.is_model_ready("none", headers=dict(headers))
    options = {} if kind == "grpc" else {"binary_data": kind == "http"}
    tensors, found = defaultdict[str, list[Any]](list), dict[str, Any]()
    with np.load(inputs, allow_pickle=True) as loaded:
        for name in loaded:
            model, _, tensor = name.partition("/")
            values = loaded[name]
            made = module.InferInput(tensor, list(values.shape), np_to_triton_dtype(values.dtype))
            made.set_data_from_numpy(values, **options)
            tensors[model].append(made)
    for model, made in tensors.items():
        wanted = [module.InferRequestedOutput(name, **options) for name in OUTPUTS]
        assert client.is_model_ready(model, headers=dict(headers))
        answer = client.infer(model, made, outputs=wanted, headers=dict(headers), request_id="7")
        found |= {f"{model}/{name}": answer.as_numpy(name) for name in OUTPUTS}
    np.savez(outputs, **found)


if __name__ == "__main__":
    main()
