"""Checks a result of ringmq-bench against its JSON Schema, which must describe each key that is written.

    check_schema.py SCHEMA RESULT"""

import json
import sys

import jsonschema


def closed(schema):
    """The schema without room for what it does not describe, unless it says that there is some."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
errors = list(jsonschema.Draft202012Validator(closed(schema)).iter_errors(json.load(open(sys.argv[2]))))
for error in errors:
    print(f"{error.json_path}: {error.message[:200]}: if it is meant, say so in bench/load/report/schema.json")
sys.exit(bool(errors))
