"""Functions that a tracer should leave alone, as data: globs, each group with its reason.

Two kinds. Some break the kernel or were seen to. Others are what a BPF program's own run goes through:
tracing them gives no event (the kernel refuses to nest) but costs a refused hit, counted as a recursion miss,
for every real one.
"""

from __future__ import annotations

from rawkm.errors import UsageError
from rawkm.host.globs import Glob, is_glob, to_bytes
from rawkm.host.lines import lines_holding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # (the reason, the globs)
    Rule = tuple[str, tuple[str, ...]]

# What is in the kernel's list and yet no function: never attached, whatever the user drops.
NO_FUNCTIONS: tuple[Rule, ...] = (
    # kernel/trace/ftrace.c, test_for_valid_rec: how it prints a record whose function is gone.
    ("a leftover of a discarded weak function", ("__ftrace_invalid_address___*",)),
)

RULES: tuple[Rule, ...] = (
    (
        # tools/testing/selftests/bpf, kprobe_multi_bench_attach: splats when a program runs while RCU is not
        # watching.
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
            "is_endbr",
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
            "perf_misc_flags",
            "perf_arch_misc_flags",
            "strscpy*",
            "sized_strscpy",
        ),
    ),
)

# What must never get a trampoline, on any kernel, whatever the user drops: those that a trampoline itself goes through.
# Linux 6.1 lets fentry attach to __rcu_read_lock and hangs, 5.10 to rcu_read_unlock_strict and dies (kernel/bpf/verifier.c,
# btf_id_deny, has most of them by now; kernel/bpf/trampoline.c).
TRAMPOLINE_RULES: tuple[Rule, ...] = (
    (
        "the trampoline itself runs through it",
        (
            "migrate_disable",
            "migrate_enable",
            "__migrate_enable",
            "___migrate_enable",
            "__rcu_read_lock*",
            "__rcu_read_unlock*",
            "rcu_read_unlock_strict",
            "rcu_read_lock_any_held",
            "rcu_lockdep_current_cpu_online",
            "preempt_count_add",
            "preempt_count_sub",
            "__bpf_prog_enter*",
            "__bpf_prog_exit*",
            "__bpf_tramp_enter",
            "__bpf_tramp_exit",
        ),
    ),
)

# Functions that do not return: a trampoline that waits for it is never given back (kernel/bpf/verifier.c, noreturn_deny).
NORETURN_RULES: tuple[Rule, ...] = (
    (
        "it does not return",
        (
            "do_exit",
            "do_group_exit",
            "do_task_dead",
            "make_task_dead",
            "rewind_stack_and_make_dead",
            "kthread_exit",
            "kthread_complete_and_exit",
            "__module_put_and_kthread_exit",
            "__*_sys_exit",
            "__*_sys_exit_group",
            "cpu_startup_entry",
            "stop_this_cpu",
            "panic",
            "vpanic",
            "nmi_panic_self_stop",
            "x86_64_start_kernel",
            "start_kernel",
            "rest_init",
            "arch_call_rest_init",
        ),
    ),
)

# Worth counting, but each record that is sent through a ring buffer makes two hits of them (6.12; 7.2 has another lock).
RING_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the ring buffer takes its lock with it at each hit", ("_raw_spin_lock_irqsave", "_raw_spin_unlock_irqrestore")),
)


class DenyList:
    """Which functions to leave alone, and why. ``extra``: globs of the user's; ``builtin``: RULES, with ``ring`` RING_RULES too.

    Raises UsageError for an extra rule that could never match a function's name.
    """

    __slots__ = ("_all", "_groups")

    def __init__(self, extra: Sequence[str] = (), *, builtin: bool = True, ring: bool = False) -> None:
        for glob in extra:
            if not glob or any(char.isspace() or char in ":/" for char in glob):
                raise UsageError(f"{glob!r} denies nothing: write a function's name or a glob over names, without a module")
        chosen = (*RULES, *(RING_RULES if ring else ())) if builtin else ()
        rules = (("denied by --deny", tuple(extra)), *NO_FUNCTIONS, *chosen)
        self._groups = [(reason, _Globs(globs)) for reason, globs in rules]
        self._all = _Globs([glob for _, globs in rules for glob in globs])

    @classmethod
    def of(cls, *rules: Rule) -> DenyList:
        """Of these rules, and of what is no function."""
        made = cls(builtin=False)
        every = (*NO_FUNCTIONS, *rules)
        made._groups = [(reason, _Globs(globs)) for reason, globs in every]
        made._all = _Globs([glob for _, globs in every for glob in globs])
        return made

    def denied(self, names: Sequence[bytes]) -> dict[bytes, str]:
        """Those of ``names`` that are denied, each with the reason of the first rule that says so."""
        return {name: self._reason(name) for name in self._all.among(names)}

    def reason(self, name: bytes) -> str | None:
        """Why ``name`` is denied, None when it is not."""
        return self.denied([name]).get(name)

    def _reason(self, name: bytes) -> str:
        return next(reason for reason, globs in self._groups if globs.among([name]))


class _Globs:
    """Many globs against many names at once: a name costs two look-ups, whatever the number of the globs."""

    __slots__ = ("_exact", "_infixes", "_others", "_prefixes", "_suffixes")

    def __init__(self, globs: Sequence[str]) -> None:
        exact: list[bytes] = []
        prefixes: list[bytes] = []
        suffixes: list[bytes] = []
        self._infixes: list[bytes] = []
        self._others: list[Glob] = []
        for glob in globs:
            body = glob.strip("*")
            raw = to_bytes(body)
            if not body or is_glob(body):
                self._others.append(Glob(glob))
            elif not glob.startswith("*"):
                (exact if glob == body else prefixes).append(raw)
            else:
                (self._infixes if glob.endswith("*") else suffixes).append(raw)
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)

    def among(self, names: Sequence[bytes]) -> set[bytes]:
        """Those of ``names`` that a glob matches."""
        exact, prefixes, suffixes = self._exact, self._prefixes, self._suffixes
        found = {name for name in names if name in exact or name.startswith(prefixes) or name.endswith(suffixes)}
        if self._infixes:
            # One search through all names for each, where "infix in name" would be one for each name.
            text = b"\n" + b"\n".join(names) + b"\n"
            for infix in self._infixes:
                found.update(line for _, line in lines_holding(text, infix))
        for glob in self._others:
            found.update(name for name in names if glob.match(name))
        return found
