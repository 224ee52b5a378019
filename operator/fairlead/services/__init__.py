"""Use cases: observe, decide, apply. Composes what the layers below keep apart.

Does not belong here: HTTP, Kopf, a database's or a cluster's own types, and decisions that need no I/O (`core`).
"""
