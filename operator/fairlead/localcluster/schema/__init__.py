"""Schemas of the embedded API server: compile, validate, default, prune, publish.

Pure functions over JSON values. Storage, protocol and permissions do not belong here.
"""

from __future__ import annotations

from fairlead.localcluster.schema.builtin import builtin_schema
from fairlead.localcluster.schema.compiling import compile_schema
from fairlead.localcluster.schema.crd import check_crd
from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.filling import pruned, with_defaults
from fairlead.localcluster.schema.openapi import openapi_document, openapi_index
from fairlead.localcluster.schema.tree import Schema
from fairlead.localcluster.schema.validating import validate

__all__ = [
    "FieldError",
    "Schema",
    "builtin_schema",
    "check_crd",
    "compile_schema",
    "openapi_document",
    "openapi_index",
    "pruned",
    "validate",
    "with_defaults",
]
