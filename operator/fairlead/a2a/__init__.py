"""Agent-to-agent (A2A): cards, messages and tasks as the SDK has them, and calls to agents that others run.

The SDK is imported in here and in `fairlead.gateway.a2a` only, and only when somebody speaks A2A.

Does not belong here: which agent is meant, who may, runs, Leases.
"""
