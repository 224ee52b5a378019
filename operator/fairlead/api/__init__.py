"""The API types: the single source of the CRDs, of validation and of the reference pages.

Pure data. What a spec means for the cluster (plans, conditions, support) belongs to `fairlead.core`.
"""
