"""Decisions, pure: no await, no clock, no environment, no randomness. Whoever calls passes in what was observed."""
