"""The embedded API server: the Kubernetes API over HTTPS, kept in one SQLite file.

It is table-driven: a kind is a row of the registry, and code for a kind exists only where Kubernetes gives that kind
behaviour. Schemas, patches and tables for people are the sibling packages' business; pods are run by the pod runtimes.
"""
