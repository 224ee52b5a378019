"""Spans: how they are named and numbered, and what they carry.

Knows neither where spans are kept nor what a run is made of. Ids follow from what they describe, so that a span that is
written twice, by two attempts or two processes, is the same span.
"""
