"""Programs: PROG_LOAD, PROG_TEST_RUN and others; BTF_LOAD, which comes before a PROG_LOAD; bpf_common_attr."""

from __future__ import annotations

from rawkm.uapi.constants import AttachType, ProgFlag, ProgType, Stream, TestRunFlag
from rawkm.uapi.fields import FD, HEX, VERSION, count_of, define, define_struct, enum, field, flags, ptr, size_of

PROG_LOAD = define(
    "PROG_LOAD",
    "",
    field("prog_type", enum(ProgType), since="3.18"),
    field("insn_cnt", count_of("insns"), since="3.18"),
    ptr("insns", "in", "insns", since="3.18", of="insn_cnt"),
    ptr("license", "in", "cstr", since="3.18"),
    field("log_level", since="3.18"),
    field("log_size", size_of("log_buf"), since="3.18"),
    ptr("log_buf", "out", "log", since="3.18", of="log_size"),
    field("kern_version", VERSION, since="4.1"),
    field("prog_flags", flags(ProgFlag), since="4.12"),
    field("prog_name", since="4.15"),
    field("prog_ifindex", since="4.15"),
    field("expected_attach_type", enum(AttachType), since="4.17"),
    field("prog_btf_fd", FD, since="5.0"),
    field("func_info_rec_size", since="5.0"),
    ptr("func_info", "in", since="5.0"),
    field("func_info_cnt", count_of("func_info"), since="5.0"),
    field("line_info_rec_size", since="5.0"),
    ptr("line_info", "in", since="5.0"),
    field("line_info_cnt", count_of("line_info"), since="5.0"),
    field("attach_btf_id", since="5.5"),
    field("attach_prog_fd", FD, since="5.5", also={"attach_btf_obj_fd": "5.11"}),
    field("core_relo_cnt", count_of("core_relos"), since="5.17"),
    ptr("fd_array", "in", "u32s", since="5.14", of="fd_array_cnt"),
    ptr("core_relos", "in", since="5.17"),
    field("core_relo_rec_size", since="5.17"),
    field("log_true_size", since="6.4"),
    field("prog_token_fd", FD, since="6.9"),
    field("fd_array_cnt", count_of("fd_array"), since="6.14"),
    ptr("signature", "in", since="6.18", of="signature_size"),
    field("signature_size", size_of("signature"), since="6.18"),
    field("keyring_id", since="6.18"),
)

PROG_TEST_RUN = define(
    "PROG_TEST_RUN",
    "",
    field("test.prog_fd", FD, since="4.12"),
    field("test.retval", since="4.12"),
    field("test.data_size_in", size_of("test.data_in"), since="4.12"),
    field("test.data_size_out", size_of("test.data_out"), since="4.12"),
    ptr("test.data_in", "in", since="4.12", of="test.data_size_in"),
    ptr("test.data_out", "out", since="4.12", of="test.data_size_out"),
    field("test.repeat", since="4.12"),
    field("test.duration", since="4.12"),
    field("test.ctx_size_in", size_of("test.ctx_in"), since="5.2"),
    field("test.ctx_size_out", size_of("test.ctx_out"), since="5.2"),
    ptr("test.ctx_in", "in", since="5.2", of="test.ctx_size_in"),
    ptr("test.ctx_out", "out", since="5.2", of="test.ctx_size_out"),
    field("test.flags", flags(TestRunFlag), since="5.10"),
    field("test.cpu", since="5.10"),
    field("test.batch_size", since="5.18"),
)

RAW_TRACEPOINT_OPEN = define(
    "RAW_TRACEPOINT_OPEN",
    "",
    # Declared as a plain u64, but it points to the tracepoint's name.
    ptr("raw_tracepoint.name", "in", "cstr", since="4.17"),
    field("raw_tracepoint.prog_fd", FD, since="4.17"),
    # Declared like a pointer, but it is the number that bpf_get_attach_cookie() returns.
    field("raw_tracepoint.cookie", HEX, since="6.10"),
)

BTF_LOAD = define(
    "BTF_LOAD",
    "",
    ptr("btf", "in", since="4.18", of="btf_size"),
    ptr("btf_log_buf", "out", "log", since="4.18", of="btf_log_size"),
    field("btf_size", size_of("btf"), since="4.18"),
    field("btf_log_size", size_of("btf_log_buf"), since="4.18"),
    field("btf_log_level", since="4.18"),
    field("btf_log_true_size", since="6.4"),
    field("btf_flags", HEX, since="6.9"),
    field("btf_token_fd", FD, since="6.9"),
)

PROG_BIND_MAP = define(
    "PROG_BIND_MAP",
    "",
    field("prog_bind_map.prog_fd", FD, since="5.10"),
    field("prog_bind_map.map_fd", FD, since="5.10"),
    field("prog_bind_map.flags", HEX, since="5.10"),
)

PROG_STREAM_READ_BY_FD = define(
    "PROG_STREAM_READ_BY_FD",
    "",
    ptr("prog_stream_read.stream_buf", "out", since="6.17", of="prog_stream_read.stream_buf_len"),
    field("prog_stream_read.stream_buf_len", size_of("prog_stream_read.stream_buf"), since="6.17"),
    field("prog_stream_read.stream_id", enum(Stream), since="6.17"),
    field("prog_stream_read.prog_fd", FD, since="6.17"),
)

PROG_ASSOC_STRUCT_OPS = define(
    "PROG_ASSOC_STRUCT_OPS",
    "",
    field("prog_assoc_struct_ops.map_fd", FD, since="7.0"),
    field("prog_assoc_struct_ops.prog_fd", FD, since="7.0"),
    field("prog_assoc_struct_ops.flags", HEX, since="7.0"),
)

# The fourth argument of bpf(2), its size the fifth: read when the command has Cmd.COMMON_ATTRS set.
COMMON_ATTR = define_struct(
    "common_attr",
    "",
    ptr("log_buf", "out", "log", since="7.2", of="log_size"),
    field("log_size", size_of("log_buf"), since="7.2"),
    field("log_level", since="7.2"),
    field("log_true_size", since="7.2"),
)

DEFINITIONS = (
    PROG_LOAD,
    PROG_TEST_RUN,
    RAW_TRACEPOINT_OPEN,
    BTF_LOAD,
    PROG_BIND_MAP,
    PROG_STREAM_READ_BY_FD,
    PROG_ASSOC_STRUCT_OPS,
    COMMON_ATTR,
)
