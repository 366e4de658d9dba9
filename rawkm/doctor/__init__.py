"""What this kernel and container allow: the report, what would help, and the difference between two reports."""
