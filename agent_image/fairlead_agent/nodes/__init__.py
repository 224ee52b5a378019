"""The actions of nodes, one module each: from rendered fields to requests through the gateway, to an output.

Does not belong here: retries, timeouts and the journal, which are the engine's, and ``wait`` and ``workflow``, which
the scheduler does alone.
"""
