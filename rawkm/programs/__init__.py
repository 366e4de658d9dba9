"""The BPF programs that rawkm loads, one module per job, assembled here and nowhere else."""
