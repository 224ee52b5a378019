"""The operator's process: Kopf, probes, start and end. The only place that knows Kopf.

Does not belong here: what is done about an object (`fairlead.services.operator`).
"""
