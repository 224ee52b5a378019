"""The gateway: the agents' only door, and where people read history. FastAPI stays in here.

Does not belong here: what a request means (`services`).
"""
