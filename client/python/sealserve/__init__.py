"""sealserve: machine-learning inference on encrypted data.

Begin with `from sealserve.client import Client`.

gRPC's core logs what its peer sends, such as the text of a GOAWAY frame, unescaped and on stderr.
sealserve turns that log off unless GRPC_VERBOSITY is set. gRPC reads the variable once, when it is
imported: a program that imports gRPC first has to set GRPC_VERBOSITY itself, to NONE or ERROR.
"""

import os

if not os.environ.get("GRPC_VERBOSITY"):
    os.environ["GRPC_VERBOSITY"] = "NONE"

__version__ = "0.1.0"
