"""Ways to attach a program, one module per kind of link."""
