"""End-to-end tests that run inside a guest, as root. What a directory holds is decided by how its guest is started:

any      every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/any
multi    kernels with kprobe_multi    tools/vm run -k 6.12 -- python3 -m pytest tests/vm/multi
ends     the same: ends, all at once  tools/vm run -k 6.12 -- python3 -m pytest tests/vm/ends
rights   the same: who may what       tools/vm run -k 6.12 -- python3 -m pytest tests/vm/rights
smp      two processors               tools/vm run -k 6.12 --smp 2 -- python3 -m pytest tests/vm/smp
cost     6.12, one processor          tools/vm run -k 6.12 -- python3 -m pytest tests/vm/cost
minimal  nothing is mounted           tools/vm run -k 6.12 --minimal -- python3 -m pytest tests/vm/minimal
old      kernels without              tools/vm run -k 6.1 -- python3 -m pytest tests/vm/old

Nothing is skipped: in a guest that was started otherwise, a directory is an error.
"""
