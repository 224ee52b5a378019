"""Removes what a home has in the engine when no pod runtime is there to do it."""

from __future__ import annotations

from fairlead.logs import get_logger

_log = get_logger(__name__)


def remove_leftovers(home: str) -> int:
    """Remove every container, volume and network of a home; return how many containers that were.

    An engine that does not answer is logged: its next start of the home removes them.
    """
    import docker

    from fairlead.localcluster.podruntime.dockerengine.belongings import Belongings
    from fairlead.localcluster.podruntime.dockerengine.following import TROUBLE

    try:
        return Belongings(docker.from_env(), home).clear()
    except TROUBLE as error:
        _log.warning("leftovers_not_removed", home=home, error=str(error))
        return 0
