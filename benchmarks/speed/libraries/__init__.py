"""Suites that time other libraries' training with fusegen's layers in it."""
