"""The names of the API group. Imports nothing, so that anything may import it."""

from __future__ import annotations

from typing import Final

GROUP: Final = "fairlead.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "fairlead"
