"""Functions that a tracer should leave alone, as data: globs, each group with its reason.

Two kinds. Some break the kernel or were seen to. Others are what a BPF program's own run goes through: tracing them gives no
event (the kernel refuses to nest) but costs a refused hit, counted as a recursion miss, for every real one.
"""

from __future__ import annotations

from rawkm.host.globs import Glob, is_glob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        # kernel/trace/ftrace.c names what it cannot name: discarded weak functions. There is nothing to attach to.
        "a leftover of a discarded weak function",
        ("__ftrace_invalid_address___*",),
    ),
    (
        # tools/testing/selftests/bpf, kprobe_multi_bench_attach: splats when a program runs while RCU is not watching.
        "it runs where RCU is not watching",
        ("rcu_*", "arch_cpu_idle", "arch_cpu_idle_*", "default_idle", "ct_*", "__ct_*"),
    ),
    (
        "it is called around every BPF program",
        (
            "migrate_disable",
            "migrate_enable",
            "___migrate_enable",
            "__rcu_read_lock",
            "__rcu_read_unlock",
            "rcu_read_unlock_strict",
            "preempt_count_add",
            "preempt_count_sub",
        ),
    ),
    (
        "its text is rewritten while the kernel runs",
        ("bpf_dispatcher_*",),
    ),
    (
        "kprobe_multi itself runs through it",
        (
            "*kprobe_multi*",
            "*fprobe*",
            "*rethook*",
            "arch_ftrace_*",
            "ftrace_*",
            "__ftrace_*",
            "fgraph_*",
            "function_graph_*",
            "bsearch",
            "bpf_get_func_ip_*",
            "bpf_get_attach_cookie_*",
            "*_bpf_prog_run*",
        ),
    ),
    (
        "rawkm's program calls it at each hit",
        (
            "bpf_get_smp_processor_id",
            "bpf_get_numa_node_id",
            "bpf_get_current_*",
            "bpf_get_ns_current_pid_tgid",
            "bpf_ktime_get_*",
            "ktime_get_mono_fast_ns",
            "*_map_lookup_elem",
            "htab_*",
            "lookup_nulls_elem_raw",
            "lookup_elem_raw",
            "*_ringbuf_*",
            "ringbuf_*",
            "irq_work_queue",
            "irq_work_queue_on",
            "__irq_work_queue_local",
            "bpf_perf_event_output*",
            "__bpf_perf_event_output",
            "perf_event_output*",
            "perf_output_*",
            "perf_prepare_*",
            "perf_event_header__init_id",
            "strscpy*",
            "sized_strscpy",
        ),
    ),
)


class DenyList:
    """``reason(name)`` says why a function is denied, None when it is not. ``extra``: globs of the user's; ``builtin``: RULES."""

    __slots__ = ("_all", "_groups")

    def __init__(self, extra: Sequence[str] = (), *, builtin: bool = True) -> None:
        rules = [("denied by --deny", tuple(extra)), *(RULES if builtin else ())]
        self._groups = [(reason, _Globs(globs)) for reason, globs in rules]
        self._all = _Globs([glob for _, globs in rules for glob in globs])

    def reason(self, name: bytes) -> str | None:
        if not self._all.match(name):
            return None
        return next(reason for reason, globs in self._groups if globs.match(name))


class _Globs:
    """Many globs at once, sorted by form: one look-up, one startswith, one endswith for nearly all of them."""

    __slots__ = ("_exact", "_infixes", "_others", "_prefixes", "_suffixes")

    def __init__(self, globs: Sequence[str]) -> None:
        exact, prefixes, suffixes = [], [], []
        self._infixes: list[bytes] = []
        self._others: list[Glob] = []
        for glob in globs:
            body = glob.strip("*")
            if not body or is_glob(body):
                self._others.append(Glob(glob))
            elif glob == body:
                exact.append(body.encode())
            elif glob == body + "*":
                prefixes.append(body.encode())
            elif glob == "*" + body:
                suffixes.append(body.encode())
            else:
                self._infixes.append(body.encode())
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)

    def match(self, name: bytes) -> bool:
        if name in self._exact or name.startswith(self._prefixes) or name.endswith(self._suffixes):
            return True
        for infix in self._infixes:
            if infix in name:
                return True
        return any(glob.match(name) for glob in self._others) if self._others else False
