"""What runs in an agent pod. It talks to the gateway and to nothing else.

Does not belong here: anything that needs a Kubernetes client, a database, a provider key or the `fairlead` package.
"""

__version__ = "0.1.0"
