"""The pod runtime ``process``: to the API a kubelet, on the machine a parent of local processes.

Does not belong here: anything that Fairlead's own kinds mean. A pod whose image is the agent image runs as a process of
this Python; every other image needs a container engine, and its pod says so.
"""
