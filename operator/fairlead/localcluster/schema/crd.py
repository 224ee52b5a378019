"""What an API server enforces on a CustomResourceDefinition."""

from __future__ import annotations

from fairlead.localcluster.schema.errors import FieldError
from fairlead.localcluster.schema.tree import Json


def check_crd(crd: Json) -> list[FieldError]:
    """Return why a CustomResourceDefinition is refused."""
    del crd
    return []
