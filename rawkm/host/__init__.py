"""Facts about the running kernel and container, read through the seam."""
