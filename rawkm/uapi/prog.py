"""Programs: PROG_LOAD, PROG_TEST_RUN, RAW_TRACEPOINT_OPEN; BTF_LOAD, which comes before a PROG_LOAD."""

from __future__ import annotations

from rawkm.uapi.constants import AttachType, ProgFlag, ProgType, TestRunFlag
from rawkm.uapi.fields import (
    FD,
    HEX,
    VERSION,
    chars,
    count_of,
    define,
    enum,
    flags,
    hole,
    ptr,
    s32,
    size_of,
    u32,
    u64,
)

PROG_LOAD = define(
    "PROG_LOAD",
    "",
    u32("prog_type", enum(ProgType), since="3.18"),
    u32("insn_cnt", count_of("insns"), since="3.18"),
    ptr("insns", "in", "insns", since="3.18", of="insn_cnt"),
    ptr("license", "in", "cstr", since="3.18"),
    u32("log_level", since="3.18"),
    u32("log_size", size_of("log_buf"), since="3.18"),
    ptr("log_buf", "out", "log", since="3.18", of="log_size"),
    u32("kern_version", VERSION, since="4.1"),
    u32("prog_flags", flags(ProgFlag), since="4.12"),
    chars("prog_name", 16, since="4.15"),
    u32("prog_ifindex", since="4.15"),
    u32("expected_attach_type", enum(AttachType), since="4.17"),
    u32("prog_btf_fd", FD, since="5.0"),
    u32("func_info_rec_size", since="5.0"),
    ptr("func_info", "in", since="5.0"),
    u32("func_info_cnt", count_of("func_info"), since="5.0"),
    u32("line_info_rec_size", since="5.0"),
    ptr("line_info", "in", since="5.0"),
    u32("line_info_cnt", count_of("line_info"), since="5.0"),
    u32("attach_btf_id", since="5.5"),
    u32("attach_prog_fd", FD, since="5.5", also={"attach_btf_obj_fd": "5.11"}),
    u32("core_relo_cnt", count_of("core_relos"), since="5.17"),
    ptr("fd_array", "in", "u32s", since="5.14", of="fd_array_cnt"),
    ptr("core_relos", "in", since="5.17"),
    u32("core_relo_rec_size", since="5.17"),
    u32("log_true_size", since="6.4"),
    s32("prog_token_fd", FD, since="6.9"),
    u32("fd_array_cnt", count_of("fd_array"), since="6.14"),
    ptr("signature", "in", since="6.18", of="signature_size"),
    u32("signature_size", size_of("signature"), since="6.18"),
    s32("keyring_id", since="6.18"),
)

PROG_TEST_RUN = define(
    "PROG_TEST_RUN",
    "",
    u32("test.prog_fd", FD, since="4.12"),
    u32("test.retval", since="4.12"),
    u32("test.data_size_in", size_of("test.data_in"), since="4.12"),
    u32("test.data_size_out", size_of("test.data_out"), since="4.12"),
    ptr("test.data_in", "in", since="4.12", of="test.data_size_in"),
    ptr("test.data_out", "out", since="4.12", of="test.data_size_out"),
    u32("test.repeat", since="4.12"),
    u32("test.duration", since="4.12"),
    u32("test.ctx_size_in", size_of("test.ctx_in"), since="5.2"),
    u32("test.ctx_size_out", size_of("test.ctx_out"), since="5.2"),
    ptr("test.ctx_in", "in", since="5.2", of="test.ctx_size_in"),
    ptr("test.ctx_out", "out", since="5.2", of="test.ctx_size_out"),
    u32("test.flags", flags(TestRunFlag), since="5.10"),
    u32("test.cpu", since="5.10"),
    u32("test.batch_size", since="5.18"),
)

RAW_TRACEPOINT_OPEN = define(
    "RAW_TRACEPOINT_OPEN",
    "",
    # Declared as a plain u64, but it points to the tracepoint's name.
    ptr("raw_tracepoint.name", "in", "cstr", since="4.17"),
    u32("raw_tracepoint.prog_fd", FD, since="4.17"),
    hole(4),
    # Declared like a pointer, but it is the number that bpf_get_attach_cookie() returns.
    u64("raw_tracepoint.cookie", HEX, since="6.10"),
)

BTF_LOAD = define(
    "BTF_LOAD",
    "",
    ptr("btf", "in", since="4.18", of="btf_size"),
    ptr("btf_log_buf", "out", "log", since="4.18", of="btf_log_size"),
    u32("btf_size", size_of("btf"), since="4.18"),
    u32("btf_log_size", size_of("btf_log_buf"), since="4.18"),
    u32("btf_log_level", since="4.18"),
    u32("btf_log_true_size", since="6.4"),
    u32("btf_flags", HEX, since="6.9"),
    s32("btf_token_fd", FD, since="6.9"),
)

DEFINITIONS = (PROG_LOAD, PROG_TEST_RUN, RAW_TRACEPOINT_OPEN, BTF_LOAD)
