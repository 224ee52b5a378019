"""Models behind one protocol: providers through LiteLLM, scripted answers, retries, prices.

Only here is LiteLLM imported, and only when a provider is asked for the first time. Knows no cluster and no storage:
keys are given by the caller and forgotten.
"""
