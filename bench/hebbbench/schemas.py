"""JSON Schemas, generated from the models that validate the files."""

from __future__ import annotations

import json

from pydantic import BaseModel

from hebbbench.protocol import Protocol
from hebbbench.recipe import RecipeFile
from hebbbench.record.schema import Result

MODELS: dict[str, type[BaseModel]] = {"protocol": Protocol, "recipes": RecipeFile, "result": Result}


def schema_text(kind: str) -> str:
    """The JSON Schema of one kind of file, with sorted keys."""
    return json.dumps(MODELS[kind].model_json_schema(), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
