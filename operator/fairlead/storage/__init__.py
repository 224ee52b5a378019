"""History: runs, tasks and their journals, calls, sessions, spans, logs. SQLAlchemy and redis are imported only here.

Does not belong here: decisions. What a journal entry means for a run is computed by whoever writes it; a store only
commits it.
"""
