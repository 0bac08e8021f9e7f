"""Container groups, checked against Azure's own model of them.

The model is azure-mgmt-containerinstance, which is generated from Azure's specification.
"""

import re
from collections.abc import Iterator
from typing import Any

from azure.mgmt.containerinstance import models

API_VERSION = "2023-05-01"
"""The version of the specification that the models are of."""

_SIMPLE: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "object": object,
}
_ENUM = r":vartype {}: str or\s+~azure\.mgmt\.containerinstance\.models\.(\w+)"


def faults(group: dict[str, Any]) -> list[str]:
    """Everything in a group that Azure would refuse: unknown, missing or mistyped, by path."""
    return list(_faults(group, "ContainerGroup", "group"))


def _faults(value: Any, kind: str, path: str) -> Iterator[str]:
    if kind.startswith("["):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for index, item in enumerate(value):
            yield from _faults(item, kind[1:-1], f"{path}[{index}]")
    elif kind.startswith("{"):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no mapping"
            return
        for key, item in value.items():
            yield from _faults(item, kind[1:-1], f"{path}.{key}")
    elif kind in _SIMPLE:
        if not isinstance(value, _SIMPLE[kind]) or isinstance(value, bool) != (kind == "bool"):
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _faults_of_members(value, getattr(models, kind), path)


def _faults_of_members(value: Any, model: Any, path: str) -> Iterator[str]:
    flat = dict(_members(value, {place.rpartition(".")[0] for place in _places(model)}))
    for name, described in model._attribute_map.items():
        place, rules = described["key"].replace("\\.", "."), model._validation.get(name, {})
        if place not in flat:
            if rules.get("required"):
                yield f"{path}.{place} is missing"
            continue
        member = flat.pop(place)
        if rules.get("readonly") and place not in ("name", "type"):  # which a template's resource has, too
            yield f"{path}.{place} is not for us to set"
        yield from _faults(member, described["type"], f"{path}.{place}")
        if (enum := re.search(_ENUM.format(name), model.__doc__)) and member not in list(getattr(models, enum[1])):
            yield f"{path}.{place}: {member!r} is no {enum[1]}"
    yield from (f"{path}.{place} is unknown" for place in flat)


def _places(model: Any) -> list[str]:
    return [described["key"] for described in model._attribute_map.values()]


def _members(value: Any, branches: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten where the model does: `properties` of a group is no model of its own."""
    for key, member in value.items():
        place = f"{prefix}{key}"
        if place in branches:
            yield from _members(member, branches, f"{place}.")
        else:
            yield place, member
