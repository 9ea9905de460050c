"""Measures of generated pictures against real ones, each on tensors of features, so that any network can stand below.

KD is the primary measure. Every class is fed batch by batch (`update`, `compute`, `merge`), every `*_statistic` is a
function of row weights for `bootstrap`.
"""
