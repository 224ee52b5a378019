"""What ``kubectl get`` shows of Kubernetes' own kinds."""

from __future__ import annotations

from fairlead.localcluster.printing.table import AGE, NAME, Columns


def builtin_columns(api_version: str, kind: str) -> Columns:
    """Return the columns of a built-in kind; name and age for kinds without their own."""
    del api_version, kind
    return (NAME, AGE)
