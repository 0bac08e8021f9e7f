"""sealserve: machine-learning inference on encrypted data.

Begin with `from sealserve import Client`. The names of this package are loaded on first use, so
that a service, which holds no secret key, does not load the modules of the client.

gRPC's core logs what its peer sends, such as the text of a GOAWAY frame, unescaped and on stderr.
sealserve turns that log off unless GRPC_VERBOSITY is set. gRPC reads the variable once, when it is
imported: a program that imports gRPC first has to set GRPC_VERBOSITY itself, to NONE or ERROR.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealserve.aio import AsyncClient as AsyncClient
    from sealserve.client import Client as Client

__all__ = ["AsyncClient", "Client"]

if not os.environ.get("GRPC_VERBOSITY"):
    os.environ["GRPC_VERBOSITY"] = "NONE"

__version__ = "0.1.0"

_MODULES = {"AsyncClient": "sealserve.aio", "Client": "sealserve.client"}


def __getattr__(name: str) -> Any:
    """Load a name on its first use: PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
