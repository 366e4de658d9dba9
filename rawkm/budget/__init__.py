"""Keeping what a trace costs within a budget, by muting its hottest functions."""
