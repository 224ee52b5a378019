"""Fairlead's control plane: the API types, the operator, the gateway, laptop mode and the command line.

Does not belong here: what runs in an agent pod (`fairlead_agent`, a distribution of its own that knows nothing of it).
"""

__version__ = "0.1.0"
