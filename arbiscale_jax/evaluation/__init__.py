"""Metrics, the protocols they are measured under, and the tables and pictures that show them.

`arbiscale eval` (cli/evaluate.py) is a thin layer over this package.
"""
