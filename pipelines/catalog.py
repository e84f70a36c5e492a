"""What methods there are, described from their settings classes; and the JSON schema of recipes for editors."""

import json
from typing import Any

from pipelines.plan import parse_slot
from pipelines.schema import Recipe
from stillhouse.methods import METHODS, load_method


def describe_method(name: str) -> dict[str, Any]:
    """`{name, summary, slots, output, settings: [{name, type, default, required, description}], example}`."""
    method = load_method(name)
    schema = method.model_json_schema()
    required = set(schema.get("required", []))
    settings = [
        {
            "name": key, "type": _type(entry, schema), "default": entry.get("default"), "required": key in required,
            "description": " ".join(entry.get("description", "").split()),
        }
        for key, entry in schema.get("properties", {}).items()
    ]  # fmt: skip
    return {
        "name": name, "summary": (method.__doc__ or "").strip().splitlines()[0], "slots": dict(method.slots),
        "output": method.output, "settings": settings, "example": _example(name),
    }  # fmt: skip


def _type(entry: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in entry:
        return _type(schema["$defs"][entry["$ref"].rpartition("/")[2]], schema)
    if "enum" in entry:
        return " | ".join(json.dumps(value) for value in entry["enum"])
    if "const" in entry:
        return json.dumps(entry["const"])
    if "anyOf" in entry:
        return " | ".join(_type(option, schema) for option in entry["anyOf"])
    if entry.get("type") == "array":
        return f"list of {_type(entry.get('items', {}), schema)}"
    return str(entry.get("type", "any"))


def _example(name: str) -> str:
    """One line of YAML with the required settings and slots."""
    method = load_method(name)
    settings = {k: f"<{k}>" for k in method.model_json_schema().get("required", [])}
    slots = {slot: slot for slot, spec in method.slots.items() if not parse_slot(spec)[1]}
    parts = [f"uses: {name}"]
    if slots:
        parts.append("inputs: {" + ", ".join(f"{k}: {v}" for k, v in slots.items()) + "}")
    if settings:
        parts.append("with: {" + ", ".join(f"{k}: {v}" for k, v in settings.items()) + "}")
    return f"{name.partition('.')[0]}: {{{', '.join(parts)}}}"


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe file: `with` and `inputs` depend on `uses`."""
    schema = Recipe.model_json_schema(by_alias=True)
    schema["properties"]["extends"] = {"type": "string", "description": "A shipped recipe or a file to start from."}
    schema["required"] = []
    step = schema["$defs"]["Step"]
    step["properties"]["uses"]["enum"] = list(METHODS)
    step["required"] = []
    step["allOf"] = []
    for name in METHODS:
        method = load_method(name)
        settings = method.model_json_schema()
        settings.pop("title", None)
        for key, value in settings.pop("$defs", {}).items():
            schema["$defs"].setdefault(key, value)
        slots = {"type": "object", "propertyNames": {"enum": list(method.slots)}}
        step["allOf"].append(
            {
                "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
                "then": {"properties": {"with": {**settings, "required": []}, "inputs": slots}},
            }
        )
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Stillhouse recipe"
    return schema
