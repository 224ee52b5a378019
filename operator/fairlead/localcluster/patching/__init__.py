"""The four kinds of patches and the tracking of field owners. Pure: no storage, no clock."""

from __future__ import annotations

from fairlead.localcluster.patching.applying import server_side_apply, track_update
from fairlead.localcluster.patching.errors import ApplyConflict, ConflictCause, PatchError
from fairlead.localcluster.patching.json_patch import json_patch, merge_patch
from fairlead.localcluster.patching.strategic import strategic_merge_patch

__all__ = [
    "ApplyConflict",
    "ConflictCause",
    "PatchError",
    "json_patch",
    "merge_patch",
    "server_side_apply",
    "strategic_merge_patch",
    "track_update",
]
