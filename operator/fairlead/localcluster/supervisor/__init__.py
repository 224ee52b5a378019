"""Laptop mode's supervisor: starts the API server, the gateway, the operator and the pod runtime, and ends them.

Does not belong here: what those processes do; the supervisor knows their commands, their readiness and their files.
"""
