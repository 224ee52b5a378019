"""The command line: one module per group of commands, imported when a command of it is called.

Does not belong here: decisions. A command parses, calls, prints, and turns what happened into an exit code.
"""
