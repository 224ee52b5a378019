"""Our agents as A2A servers: the SDK's JSON-RPC over runs. Imported when somebody speaks A2A.

Does not belong here: who may (`fairlead.gateway.routes.a2a`), and what a message does (`fairlead.services.messages`).
"""
