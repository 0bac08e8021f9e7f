"""JSON as the files of the vectors have it: a line for each member of a list."""

import json
from typing import Any


def json_text(content: dict[str, Any]) -> bytes:
    """Write an object: a line for each key, and for each member of most lists."""
    return (_object(content, "") + "\n").encode()


def _object(content: dict[str, Any], indent: str) -> str:
    inner = indent + "  "
    lines = [f"{inner}{json.dumps(key)}: {_value(value, inner)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _value(value: Any, indent: str) -> str:
    if not isinstance(value, list) or not value or not isinstance(value[0], list | dict | str | None):
        return json.dumps(value)
    lines = []
    for member in value:
        is_long = isinstance(member, dict) and len(json.dumps(member)) > 200
        lines.append(f"{indent}  {_object(member, indent + '  ') if is_long else json.dumps(member)}")
    return "[\n" + ",\n".join(lines) + f"\n{indent}]"


def number(value: float) -> float | str:
    """A number as JSON has it, which lacks NaN and infinity."""
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"
