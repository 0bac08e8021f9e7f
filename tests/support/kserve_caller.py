"""A program for an environment with KServe's SDK: it asks an agent, and saves what comes back.

    python kserve_caller.py KIND PLACE TOKEN INPUTS OUTPUTS

KIND is grpc, grpc_typed, http or json. INPUTS is an .npz file of a model's tensors, by MODEL/NAME;
OUTPUTS gets what the agent returns, by MODEL/OUTPUT.
"""

import asyncio
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

OUTPUTS = ("label", "score", "probability")
DATATYPES = {"f": "FP64", "i": "INT64", "O": "BYTES"}


async def main() -> None:
    """Ask for all rows of each model at once."""
    kind, place, token, inputs, outputs = sys.argv[1:]
    is_grpc, is_raw = kind.startswith("grpc"), kind in ("grpc", "http")
    tensors, found = defaultdict[str, list[Any]](list), dict[str, Any]()
    with np.load(inputs, allow_pickle=True) as loaded:
        for name in loaded:
            model, _, tensor = name.partition("/")
            made = InferInput(tensor, list(loaded[name].shape), DATATYPES[loaded[name].dtype.kind])
            made.set_data_from_numpy(loaded[name], binary_data=is_raw)
            tensors[model].append(made)
    grpc_headers, headers = (("authorization", f"Bearer {token}"),), {"Authorization": f"Bearer {token}"}
    grpc_client: Any = InferenceGRPCClient(place) if is_grpc else None
    rest: Any = None if is_grpc else InferenceRESTClient(RESTConfig(protocol="v2"))
    if is_grpc:
        assert await grpc_client.is_server_live(headers=grpc_headers)
        assert await grpc_client.is_server_ready(headers=grpc_headers)
    else:
        assert await rest.is_server_live(place, headers=dict(headers))
        assert await rest.is_server_ready(place, headers=dict(headers))
    for model, made in tensors.items():
        wanted = [RequestedOutput(name, {"binary_data": is_raw}) for name in OUTPUTS]
        request = InferRequest(model_name=model, infer_inputs=made, request_id="7", request_outputs=wanted)
        if is_grpc:
            assert await grpc_client.is_model_ready(model, headers=grpc_headers)
            answer = await grpc_client.infer(request, headers=grpc_headers)
        else:
            assert await rest.is_model_ready(place, model, headers=dict(headers))
            answer = await rest.infer(place, request, headers=dict(headers), model_name=model)
        assert answer.id == "7"
        found |= {f"{model}/{output.name}": output.as_numpy() for output in answer.outputs}
    np.savez(outputs, **found)


if __name__ == "__main__":
    asyncio.run(main())
