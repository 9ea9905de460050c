"""Ablations: a YAML file of axes becomes cells, cells become stored images and features, and these become a table.

config (YAML to `Config`) -> cells -> plan -> work (blocks, on one process or several) -> measure -> results.json.
"""
