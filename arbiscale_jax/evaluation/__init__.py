"""Measures models: it has the metrics, the protocols under which they are measured, and tables and pictures of results.

`arbiscale eval` (cli/evaluate.py) is a thin layer over this package.
"""
