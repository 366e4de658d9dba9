"""What each command did on a real kernel, recorded by tools/golden, and done again here without one."""
