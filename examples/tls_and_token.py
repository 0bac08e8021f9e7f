"""TLS and a token: a client of a service on another machine, with a key that it keeps.

    export SEALSERVE_ADDRESS=inference.example.org:50051
    export SEALSERVE_TOKEN=sealserve_...            # from the operator
    export SEALSERVE_CA_CERTIFICATE=ca.crt          # only if the authority is not a public one
    python examples/tls_and_token.py rows.csv tumors.key

The token says who you are. The secret key decrypts, and never leaves this machine.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from sealserve import Client
from sealserve.credentials import Credentials
from sealserve.errors import PermissionDeniedError, UnauthenticatedError
from sealserve.secret_key import SecretKey

rows, key_file = pd.read_csv(sys.argv[1]), Path(sys.argv[2])
credentials = Credentials(
    ca_certificate=os.environ.get("SEALSERVE_CA_CERTIFICATE"),
    server_name=os.environ.get("SEALSERVE_SERVER_NAME", ""),
    token=os.environ["SEALSERVE_TOKEN"],
)
key = SecretKey.load(key_file) if key_file.exists() else None
with Client(os.environ["SEALSERVE_ADDRESS"], model="tumors", credentials=credentials, secret_key=key) as client:
    try:
        print(*client.predict(rows), sep="\n")
    except (UnauthenticatedError, PermissionDeniedError) as error:
        sys.exit(f"ask the operator: {error}")
    if key is None:
        client.secret_key.save(key_file)  # for its owner only, mode 0600
