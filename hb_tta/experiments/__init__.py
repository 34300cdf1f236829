"""A file a table of the papers: which runs it takes, and what becomes of their results.

Run one with ``python -m hb_tta.experiments.NAME``; its ``--help`` tells what it writes.
"""
