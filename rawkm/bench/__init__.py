"""Measuring the ways to attach: what attaching, detaching and a hit cost on this kernel."""
