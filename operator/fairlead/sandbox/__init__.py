"""Runs code that nobody trusts: one protocol, several back ends."""

from __future__ import annotations
