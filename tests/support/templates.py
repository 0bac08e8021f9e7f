"""The templates of deploy/aci, evaluated as Azure and az would, with example values."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.bicep import Template, read_template
from tests.support.container_group import API_VERSION
from tests.support.serving import ROOT

DIRECTORY = ROOT / "deploy/aci"
BICEP = (DIRECTORY / "main.bicep").read_text()
YAML = (DIRECTORY / "container-group.yaml").read_text()

VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
IDENTITY = (
    "/subscriptions/1/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/scorer-identity"
)
SECRETS = {"TLS_CERTIFICATE": "cert", "TLS_PRIVATE_KEY": "key", "TLS_AUTHORITY": "ca", "IDENTITIES": "identities"}
ACCOUNT_KEY = "the account's key"
FILLED_IN = {
    "ACI_NAME": "scorer",
    "ACI_REGION": "westeurope",
    "ACI_REGISTRY": "registry",
    "ACI_MODEL_ACCOUNT": "modelaccount",
    "ACI_MODEL_SHARE": "models",
    "ACI_MODEL_NAME": "mnist",
    "ACI_INPUT_RANGE": "0,1",
    "ACI_WEIGHTS": "private",
    "ACI_KEY_ACCOUNT": "keyaccount",
    "ACI_KEY_CONTAINER": "keys",
    "IMAGE": "registry.azurecr.io/sealserve:1.2.3",
    "MODEL_FILE": "mnist.skops",
    "MODEL_SHA256": "0123456789abcdef" * 4,
    "MODEL_ACCOUNT_KEY": ACCOUNT_KEY,
    "IDENTITY_ID": IDENTITY,
    "IDENTITY_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
    **{name: base64.b64encode(secret.encode()).decode() for name, secret in SECRETS.items()},
}
PARAMETERS = {
    "name": FILLED_IN["ACI_NAME"],
    "image": FILLED_IN["IMAGE"],
    "registryName": FILLED_IN["ACI_REGISTRY"],
    "modelAccountName": FILLED_IN["ACI_MODEL_ACCOUNT"],
    "modelName": FILLED_IN["ACI_MODEL_NAME"],
    "modelFile": FILLED_IN["MODEL_FILE"],
    "modelSha256": FILLED_IN["MODEL_SHA256"],
    "keyAccountName": FILLED_IN["ACI_KEY_ACCOUNT"],
    "tlsCertificate": SECRETS["TLS_CERTIFICATE"],
    "tlsPrivateKey": SECRETS["TLS_PRIVATE_KEY"],
    "tlsAuthority": SECRETS["TLS_AUTHORITY"],
    "identities": SECRETS["IDENTITIES"],
}
SECURE = {"tlsCertificate", "tlsPrivateKey", "tlsAuthority", "identities"}
OUTSIDE = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "concat": lambda *lists: [item for items in lists for item in items],
    "description": str,
    "environment": lambda: {"suffixes": {"storage": "core.windows.net"}},
    "guid": lambda *names: "/".join(names),
    "json": json.loads,
    "resourceGroup": lambda: {"location": FILLED_IN["ACI_REGION"]},
    "subscriptionResourceId": lambda kind, name: f"/subscriptions/1/providers/{kind}/{name}",
    "identity": {
        "id": IDENTITY,
        "properties": {"clientId": FILLED_IN["IDENTITY_CLIENT_ID"], "principalId": "the identity's principal"},
    },
    "registry": {"id": "the registry"},
    "keyContainer": {"id": "the key container"},
    "modelAccount": {"listKeys": lambda: {"keys": [{"value": ACCOUNT_KEY}]}},
    "group": {"properties": {"ipAddress": {"fqdn": "scorer.westeurope.azurecontainer.io"}}},
}


def template(**parameters: Any) -> Template:
    """What the Bicep declares."""
    return read_template(BICEP, PARAMETERS | parameters, OUTSIDE)


def group_of_bicep(**parameters: Any) -> dict[str, Any]:
    """The container group as a resource of Azure's API, which has no symbolic names."""
    body = dict(template(**parameters).resources["group"].body)
    body.pop("dependsOn")
    return body


def filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in the environment's variables as az does.

    They are filled into every text, keys included, after the YAML was parsed.
    """
    match value:
        case dict():
            return {filled_in(key, variables): filled_in(member, variables) for key, member in value.items()}
        case list():
            return [filled_in(member, variables) for member in value]
        case str():
            return VARIABLE.sub(lambda variable: variables[variable[1]], value)
    return value


def group_of_yaml(**variables: str) -> dict[str, Any]:
    """The container group that az asks for."""
    group: dict[str, Any] = filled_in(yaml.safe_load(YAML), FILLED_IN | variables)
    assert group.pop("apiVersion") == API_VERSION
    assert group.pop("type") == "Microsoft.ContainerInstance/containerGroups"
    return group


def container(group: dict[str, Any]) -> dict[str, Any]:
    """The only container of a group."""
    (only,) = group["properties"]["containers"]
    properties: dict[str, Any] = only["properties"]
    return properties
