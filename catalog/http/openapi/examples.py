"""Examples of bodies, made from the examples of their fields."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from catalog.http.replies.negotiation import CSV, EVENT_STREAM

Schema = Mapping[str, Any]


def example_of(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    """Return an example of a schema: its own, or one made of those of its parts.

    Args:
        schema: the schema, possibly a reference.
        schemas: the schemas that references name, by name.

    Raises:
        LookupError: a part has neither an example nor a value that is implied.
    """
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return example_of(schema[choices][0], schemas)
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas)]
    if schema.get("type") == "object" and "properties" in schema:
        required = schema.get("required", ())
        return {
            name: example_of(part, schemas)
            for name, part in schema["properties"].items()
            if name in required or "examples" in part
        }
    raise LookupError(f"No example: {schema}")


def text_example(media_type: str, example: Any) -> str:
    """Return the example of a JSON body in another media type.

    Args:
        media_type: newline-delimited JSON, CSV or an event stream.
        example: an object, or a page of objects, which has them in its first member.
    """
    first = next(iter(example.values()))
    rows: Sequence[dict[str, Any]] = first if isinstance(first, list) else [example]
    if media_type == CSV:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    lines = [orjson.dumps(row).decode() for row in rows]
    if media_type == EVENT_STREAM:
        return "".join(f"id: {example['change']}\ndata: {line}\n\n" for line in lines)
    return "".join(f"{line}\n" for line in lines)
