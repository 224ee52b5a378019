"""Laptop mode: the embedded API server and the pod runtimes.

Nothing in here knows a kind of Fairlead's own; it serves Kubernetes objects and runs pods.
"""
