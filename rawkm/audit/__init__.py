"""bpf(2) of other programs: watched by ptrace(2) or by a BPF program, decoded, summed up.

A process of its own stops the watched threads and reads their memory (tracer); what it saw arrives as raw calls (raw), which are
turned into fields and texts (decode) without any further look at the program. So decoding costs the program nothing, may
happen later, and cannot fail on what a hostile program has put into its memory.
"""
