"""Fakes, factories and real servers for tests, of Fairlead and of whoever builds on it."""
