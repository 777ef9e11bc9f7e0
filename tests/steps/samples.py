"""The recipe that tests of the registry and of ingress start from."""

from typing import Any

SPEC: dict[str, Any] = {
    "id": "spec09.demo",
    "v": "1.0.0",
    "name": "spec09 demo",
    "tags": ["showcase"],
    "formSchema": {
        "type": "object",
        "properties": {"goal": {"type": "string", "default": "g"}},
        "required": [],
    },
    "intentTmpl": {"goal": "{{formData.goal}}", "inputs": {}, "constraints": {}},
    "wfEntry": "Runner.runIntent",
    "queue": "intentQ",
    "limits": {"maxSteps": 10, "maxFanout": 1, "maxSbxMin": 5, "maxTokens": 1024},
    "eval": [
        {"id": "e1", "kind": "file_exists", "glob": "**/*"},
        {"id": "e2", "kind": "jsonschema", "artifact": "a", "schema": {"type": "object"}},
        {"id": "e3", "kind": "rowcount_gte", "artifact": "a", "n": 0},
        {"id": "e4", "kind": "regex", "artifact": "a", "re": "^x"},
        {"id": "e5", "kind": "diff_le", "artifactA": "a", "artifactB": "b", "max": 5},
    ],
    "fixtures": [{"id": "fx1", "formData": {"goal": "fixture-goal"}}],
    "prompts": {"compile": "compile", "postmortem": "postmortem"},
}
