"""Program that checks manifests on its standard input, as strictly as Kubernetes does on request.

Kubernetes' own kinds are checked by kubernetes-validate, others by tests/deploy/schemas. A field
that a schema does not name is a fault, and so is a kind that has no schema. What has no kind is a
Compose file.
"""

import json
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator, ValidationError

VERSION = "1.37"
SCHEMAS = Path(__file__).parents[1] / "tests/deploy/schemas"
LOGIC = {"allOf", "anyOf", "oneOf", "not"}


def strict(schema: Any) -> Any:
    """A schema of a CRD, as JSON Schema that refuses what Kubernetes would drop."""
    if not isinstance(schema, dict):
        return schema
    # What `anyOf` and the like say of a value is only part of what it may have.
    found = {name: each if name in LOGIC else strict(each) for name, each in schema.items()}
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    return found


def other_kinds() -> dict[str, Any]:
    """The schema of each "apiVersion kind" that is not Kubernetes' own; "" is a Compose file."""
    kinds = {"": json.loads((SCHEMAS / "compose-spec.json").read_text())["schema"]}
    for path in SCHEMAS.glob("*.json"):
        found = json.loads(path.read_text())
        if "kind" in found:
            schema = strict(found["schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            kinds[f"{found['apiVersion']} {found['kind']}"] = schema
    return kinds


def faults(manifest: dict[str, Any], kinds: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest."""
    schema = kinds.get(f"{manifest.get('apiVersion', '')} {manifest.get('kind', '')}".strip())
    if schema is not None:
        return [described(error) for error in Draft202012Validator(schema).iter_errors(manifest)]
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except ValidationError as error:
        return [described(error)]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def described(error: ValidationError) -> str:
    """Where an error is, and what it is."""
    return f"{error.json_path}: {error.message}"


def main() -> int:
    """Check all manifests, and return the exit code: 1 if there are faults."""
    kinds, count, found = other_kinds(), 0, list[str]()
    for manifest in yaml.safe_load_all(sys.stdin):
        count += 1
        name = f"{manifest['kind']} {manifest['metadata']['name']}" if "kind" in manifest else "compose"
        found += [f"{name}: {fault}" for fault in faults(manifest, kinds)]
    print("\n".join([*found, f"{count} manifests, {len(found)} faults"]))
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
