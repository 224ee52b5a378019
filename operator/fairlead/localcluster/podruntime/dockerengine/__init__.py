"""Pods as containers of a local Docker engine.

Does not belong here: what has to happen to a pod (`plan`), and anything that a local process can do, too.
"""
