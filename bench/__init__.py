"""Measurements, as ratios against stock QEMU or the un-instrumented run.

``python -m bench`` (or ``make bench``) runs them all and prints the tables of
docs/performance.md. Nothing here passes or fails: machines differ.
"""
