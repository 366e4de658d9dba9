"""Runs recorded where they happen, replayed by somebody who may do nothing; and scripts that do them again."""
