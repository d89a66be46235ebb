"""Where a key stands in a recipe's schema, and which keys are known beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]


def walk(schema: Schema, location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """The location without the names of alternatives, and the keys that are known beside its last part."""
    node, shown, known = schema, list[str](), list[str]()
    for part in location:
        node = _resolved(schema, node)
        alternative = _alternative(node, str(part))
        if alternative is not None:
            node = alternative
            continue
        shown.append(str(part))
        known = sorted(node.get("properties", {}))
        inner = node.get("items") if isinstance(part, int) else node.get("additionalProperties")
        node = node.get("properties", {}).get(part) or (inner if isinstance(inner, Mapping) else {})
    return shown, known


def _resolved(schema: Schema, node: Schema) -> Schema:
    """The node behind references, and behind ``X | None``."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
            continue
        present = [each for each in node["anyOf"] if each.get("type") != "null"]
        if len(present) > 1:
            break
        node = present[0]
    return node


def _alternative(node: Schema, part: str) -> Schema | None:
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    named = [each for each in node.get("anyOf", ()) if each.get("$ref", "").rpartition("/")[2] == part]
    plain = "anyOf" in node and (part in ("str", "int", "float", "bool") or part.startswith("tuple["))
    return named[0] if named else {} if plain else None
