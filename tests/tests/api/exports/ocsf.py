"""Holds each line of a file against the schema of OCSF that its maintainers publish (ocsf-json-schema), and says what does not fit."""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
validators = {}
classes = set()
faults = 0
for number, line in enumerate(open(sys.argv[1], encoding="utf-8"), 1):
    event = json.loads(line)
    assert event["metadata"]["version"] == "1.5.0"
    kind = (event["class_uid"], *event["metadata"].get("profiles", []))
    if kind not in validators:
        name = schema.lookup_class_name_from_uid(class_uid=kind[0])
        validators[kind] = Draft202012Validator(
            schema.get_class_schema(class_name=name, profiles=list(kind[1:]))
        )
    classes.add(kind[0])
    for error in validators[kind].iter_errors(event):
        faults += 1
        print(f"line {number}: {list(error.path)}: {error.message[:300]}", file=sys.stderr)
print(json.dumps(sorted(classes)))
sys.exit(1 if faults else 0)
