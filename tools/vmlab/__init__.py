"""Real Debian kernels under QEMU: fetch them, build a small guest around Python, run a command in it.

The command line is ``tools/vm`` (see cli.py). Nothing here is imported by the rawkm package.
"""
