"""Built-in tools, each behind one protocol: name, JSON Schema of the arguments, what it gives.

What parses or computes runs in a child process without environment, keys or file access. Knows no cluster: what a tool
may read is given to it.
"""
