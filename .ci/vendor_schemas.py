"""Writes tests/deploy/schemas, by which custom resources and deploy/compose.yaml are checked.

Each schema comes from the Go module of the project that defines it, at the version below, by Go's
proxy and checksum database. Descriptions are left out, and rules in CEL, which no validator of
JSON Schema runs.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

SCHEMAS = Path(__file__).parents[1] / "tests/deploy/schemas"
NOT_CHECKED = {"description", "x-kubernetes-validations"}


class Source(NamedTuple):
    """Where schemas are: a Go module, a folder of it, and names of files."""

    module: str
    version: str
    folder: str
    files: tuple[str, ...]


SOURCES = (
    Source(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "config/crd/standard",
        (
            "gateway.networking.k8s.io_gateways.yaml",
            "gateway.networking.k8s.io_grpcroutes.yaml",
            "gateway.networking.k8s.io_backendtlspolicies.yaml",
        ),
    ),
    Source(
        "github.com/envoyproxy/gateway",
        "v1.9.0",
        "charts/gateway-helm/charts/crds/crds/generated",
        ("gateway.envoyproxy.io_backendtrafficpolicies.yaml", "gateway.envoyproxy.io_clienttrafficpolicies.yaml"),
    ),
    Source("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases", ("keda.sh_scaledobjects.yaml",)),
    Source("github.com/cert-manager/cert-manager", "v1.21.2", "deploy/crds", ("cert-manager.io_certificates.yaml",)),
    Source(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_podmonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"),
    ),
    Source(
        "sigs.k8s.io/secrets-store-csi-driver",
        "v1.4.8",
        "config/crd/bases",
        ("secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",),
    ),
    Source("github.com/compose-spec/compose-go/v2", "v2.16.2", "schema", ("compose-spec.json",)),
)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: `=` is a text."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:value", _text)


def without(value: Any, properties: bool = False) -> Any:
    """A schema without what is not checked; a property may have any name."""
    if isinstance(value, list):
        return [without(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {name: each for name, each in value.items() if properties or name not in NOT_CHECKED}
    return {name: without(each, name == "properties" and not properties) for name, each in kept.items()}


def contents(text: str) -> dict[str, Any]:
    """A schema: of a kind, in the version that Kubernetes stores, or of something else."""
    found = yaml.load(text, _Loader)  # noqa: S506  # it is a SafeLoader
    if found.get("kind") != "CustomResourceDefinition":
        return {"schema": without(found)}
    spec = found["spec"]
    (version,) = (each for each in spec["versions"] if each["storage"])
    kind = {"apiVersion": f"{spec['group']}/{version['name']}", "kind": spec["names"]["kind"]}
    return kind | {"schema": without(version["schema"]["openAPIV3Schema"])}


def main(go: str) -> None:
    """Fetch the modules with Go, and write one file for each schema."""
    for old in SCHEMAS.glob("*.json"):
        old.unlink()
    for source in SOURCES:
        name = f"{source.module}@{source.version}"
        fetched = subprocess.run([go, "mod", "download", "-json", name], check=True, capture_output=True, text=True)
        for file in source.files:
            path = f"{source.folder}/{file}"
            found = {"source": f"{name}/{path}"} | contents(
                (Path(json.loads(fetched.stdout)["Dir"]) / path).read_text()
            )
            (SCHEMAS / file).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
