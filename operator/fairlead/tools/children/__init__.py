"""Programs that run in child processes: they read one JSON document and write one. They hold no keys and open no files.

Does not belong here: anything that a parent process imports.
"""
