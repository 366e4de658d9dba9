"""End-to-end tests that run inside a guest, as root. What a directory holds is decided by how its guest is started:

any      every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/any
multi    kernels with kprobe_multi    tools/vm run -k 6.12 -- python3 -m pytest tests/vm/multi
ends     the same: how a trace ends   tools/vm run -k 6.12 -- python3 -m pytest tests/vm/ends
whole    the same: all functions       tools/vm run -k 6.12 -- python3 -m pytest tests/vm/whole
rights   the same: who may what       tools/vm run -k 6.12 -- python3 -m pytest tests/vm/rights
smp      two processors               tools/vm run -k 6.12 --smp 2 -- python3 -m pytest tests/vm/smp/test_smp_patching.py
         both at once                 tools/vm run -k 6.12 --smp 2 --tcg multi -- python3 -m pytest tests/vm/smp/test_smp.py
         the same on every kernel     tools/vm run -k 5.10 --smp 2 --tcg multi -- python3 -m pytest tests/vm/smp/test_backends.py
fuzz     every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/fuzz
cost     6.12, one processor          tools/vm run -k 6.12 -- python3 -m pytest tests/vm/cost
minimal  nothing is mounted           tools/vm run -k 6.12 --minimal -- python3 -m pytest tests/vm/minimal
links    every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/links
rules    every kernel                 tools/vm run -k 5.10 -- python3 -m pytest -q tests/vm/rules
audit    other people's programs      tools/vm run -k 6.12 --memory 1536 --with bpftool --with bpftrace --with libbpf-tools \\
                                          -- python3 -m pytest tests/vm/audit
bench    every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/bench
kills    every kernel                 tools/vm run -k 5.10 -- python3 -m pytest tests/vm/kills
old      kernels without              tools/vm run -k 6.1 -- python3 -m pytest tests/vm/old

any, multi and rights hold on another architecture, too: tools/vm run -k 7.2-arm64.

Nothing is skipped: in a guest that was started otherwise, a directory is an error.
"""
