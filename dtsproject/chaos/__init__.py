"""Faults on purpose: DTS on a database of its own, broken by a seeded schedule, then judged.

`manage.py chaos` runs it (run.py). What happened is a history of plain events (history.py); the
checks (checks.py) read nothing else, so that a history can be kept, read and judged again.
"""
