"""Objects as tables of text, the way kubectl users know them. Pure: time is an argument."""

from __future__ import annotations

from fairlead.localcluster.printing.builtin import builtin_columns
from fairlead.localcluster.printing.jsonpath import find as find_jsonpath
from fairlead.localcluster.printing.table import Column, Columns, crd_columns, to_table

__all__ = ["Column", "Columns", "builtin_columns", "crd_columns", "find_jsonpath", "to_table"]
