"""The only way out to a Kubernetes API: one asyncio client, its watch, its errors.

Knows no kind of Fairlead's own and decides nothing; objects are plain dicts as on the wire.
"""

from fairlead.kube.client import KubeClient
from fairlead.kube.resources import Ref
from fairlead.kube.reviews import TokenIdentity

__all__ = ["KubeClient", "Ref", "TokenIdentity"]
