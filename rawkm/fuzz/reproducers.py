"""A case as a pytest and as a C program, each of which fails where the kernel still does what was seen."""

from __future__ import annotations

from rawkm.fuzz.case import BPFFS, CLOSE, NEW_FD, UNLINK, Case, Data, Part, Pin, ids_wanted, outcome, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from rawkm.fuzz.case import Check, FdSource, Step, Target


def as_pytest(case: Case) -> str:
    """A test file of its own; it needs rawkm and the rights that the calls take."""
    lines = [
        f'"""{_words(case)}"""',
        "",
        "from rawkm import open_kernel",
        "from rawkm.fuzz.case import Case, Check, Data, Part, Pin, Step, run",
        "from rawkm.syscall.raw import Address, RawBpf",
        "",
        "CASE = Case(",
        "    [",
    ]
    for step in case.steps:
        lines.append(f"        # {_line(f'{_head(step)}: {_expectation(step)}')}")
        lines.append(f"        {step!r},")
    lines += [
        "    ],",
        f"    cpu={case.cpu},",
        ")",
        "",
        "",
        "def test_the_kernel_does_as_expected():",
        "    assert run(CASE, open_kernel(), RawBpf()) == []",
        "",
    ]
    return "\n".join(lines)


def _words(case: Case) -> str:
    text = "\n".join(line for line in (case.title, f"Found on {case.kernel}." if case.kernel else "", "", case.text) if line)
    return text.replace("\\", "\\\\").replace('"""', "'''").rstrip() + ("\n" if "\n" in text else "")


def _head(step: Step) -> str:
    return f"{step.name}: {step.note}" if step.note else step.name


def _line(text: str) -> str:
    """For a comment, which it must not end: what stands in a recording may be anybody's."""
    return "".join(char if char.isprintable() else "?" for char in text).replace("*/", "* /")


def _string(text: str) -> str:
    """As C has it."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _expectation(step: Step) -> str:
    if not step.expect:
        return "whatever comes"
    checks = "".join(f", {check.name} {_wanted(check)}" for check in step.checks)
    return " or ".join(map(outcome, step.expect)) + checks


def _wanted(check: Check) -> str:
    return check.want.hex() if check.id is None else f"the id of step {check.id}'s object"


# -- C -------------------------------------------------------------------------------------------------------------------------

_PROLOGUE = """\
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* size bytes of memory, the first of them from data, the others 0; nothing is mapped behind the last one */
static unsigned char *edge(const unsigned char *data, size_t used, size_t size)
{
	size_t page = sysconf(_SC_PAGESIZE), whole = (size + page - (size > 0)) / page * page;
	unsigned char *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || mprotect(at + whole, page, PROT_NONE)) {
		perror("memory");
		exit(2);
	}
	at += whole - size;
	memcpy(at, data, used < size ? used : size);
	return at;
}

/* memcpy: fields lie at any offset, and may be cut off */
static void put(unsigned char *at, unsigned long long value, int size)
{
	memcpy(at, &value, size);
}

static inline int opened(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		perror(path);
		exit(2);
	}
	return fd;
}

static inline int check(const char *what, const unsigned char *seen, const unsigned char *want, int size)
{
	int i;

	if (!memcmp(seen, want, size))
		return 0;
	printf("%s: expected ", what);
	for (i = 0; i < size; i++)
		printf("%02x", want[i]);
	printf(", seen ");
	for (i = 0; i < size; i++)
		printf("%02x", seen[i]);
	printf("\\n");
	return 1;
}
"""


_BPFFS = """
/* a bpffs of our own, mounted nowhere */
static int bpffs(void)
{
	static int root = -1;
	int context;

	if (root < 0) {
		context = syscall(SYS_fsopen, "bpf", 1);
		syscall(SYS_fsconfig, context, 6, NULL, NULL, 0);
		root = syscall(SYS_fsmount, context, 1, 0);
		close(context);
	}
	if (root < 0) {
		perror("bpffs");
		exit(2);
	}
	return root;
}

static unsigned char *pin(const char *name)
{
	char path[64];
	int size = snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", bpffs(), name) + 1;

	return edge((unsigned char *)path, size, size);
}
"""

_IDS = """
/* the id of a program, map or link: the second number of what the kernel tells of it */
static unsigned int object_id(int fd)
{
	unsigned int info[2] = { 0 };
	struct { unsigned int fd, size; unsigned long long info; } attr = { fd, sizeof(info), (unsigned long)info };

	syscall(SYS_bpf, 15, &attr, sizeof(attr));
	return info[1];
}
"""


def as_c(case: Case) -> str:
    """A program without headers of the kernel's: status 0 where all is as expected, 1 where not, 2 where it could not run."""
    comment = "\n".join(f" * {line}".rstrip() for line in _words(case).rstrip().splitlines()).replace("*/", "* /")
    more = _BPFFS if any(BPFFS in sources(step) for step in case.steps) else ""
    more += _IDS if ids_wanted(case) else ""
    return f"/*\n{comment}\n */\n{_PROLOGUE}{more}\nint main(void)\n{{\n" + "\n".join(_main(case)) + "\n}\n"


def _main(case: Case) -> Iterator[str]:
    yield f"\tlong fd[{max(len(case.steps), 1)}], result, code;"
    yield "\tint bad = 0;"
    wanted_ids = ids_wanted(case)
    if wanted_ids:
        yield f"\tunsigned int id[{len(case.steps)}];"
    if case.cpu is not None:
        yield f"\tstatic unsigned long cpus[{case.cpu // 64 + 1}];\n"
        yield f"\tcpus[{case.cpu // 64}] = 1UL << {case.cpu % 64};"
        yield "\tif (syscall(SYS_sched_setaffinity, 0, sizeof(cpus), cpus) < 0)"
        yield "\t\treturn 2;"
    yield ""
    for index, step in enumerate(case.steps):
        yield f"\t/* step {index}: {_line(_head(step))} */"
        if step.cmd == CLOSE:
            yield f"\tclose(fd[{step.fds[0]}]);"
            continue
        if step.cmd == UNLINK:
            name = step.pointers[0]
            assert isinstance(name, Pin)
            yield f'\tunlink((char *)pin("{name.name}"));'
            continue
        yield "\t{"
        room = max(len(step.attr), step.size if step.size <= 65536 else 0) if step.room is None else step.room
        yield from _piece("attr", step.attr[:room], room)
        names: dict[int, str] = {}
        made: list[str] = []
        within: dict[tuple[int, int], str] = {}
        for offset, target in step.pointers.items():
            if isinstance(target, Data):
                names[offset] = f"m{len(made)}"
                made.append(names[offset])
                inner = yield from _memory(names[offset], target, made)
                within |= {(offset, at): name for at, name in inner.items()}
            elif isinstance(target, Pin):
                names[offset] = f"m{len(made)}"
                made.append(names[offset])
                yield f'\t\tunsigned char *{names[offset]} = pin("{target.name}");'
        yield from _patches("attr", room, step.pointers, step.fds, names)
        for offset, (source, added) in step.ids.items():
            if offset < room:
                yield f"\t\tput(attr + {offset}, id[{source}] + {added}, {min(4, room - offset)});"
        if step.within:
            yield f"\t\tint tries = {int(step.within * 1000)};"
        yield ""
        address = "attr" if step.address is None else f"(void *)0x{int(step.address):x}UL"
        again = "\t" if step.within else ""
        if step.within:
            yield "\t\tfor (;;) {"
        yield f"{again}\t\tresult = syscall(SYS_bpf, {step.cmd}, {address}, {step.size}UL);"
        yield f"{again}\t\tcode = result < 0 ? errno : 0;"
        if step.within:
            yield f"\t\t\tif ({' || '.join(f'code == {code}' for code in step.expect)} || !tries--)"
            yield "\t\t\t\tbreak;"
            if step.cmd in NEW_FD:
                yield "\t\t\tif (result >= 0)"
                yield "\t\t\t\tclose(result);"
            yield "\t\t\tusleep(1000);"
            yield "\t\t}"
        yield f"\t\tfd[{index}] = {'result' if step.cmd in NEW_FD else '-1'};"
        if index in wanted_ids:
            yield f"\t\tid[{index}] = object_id(fd[{index}]);"
        if step.expect:
            wrong = " && ".join(f"code != {code}" for code in step.expect)
            yield f"\t\tif ({wrong}) {{"
            yield f'\t\t\tprintf("{step.name}: expected {" or ".join(map(outcome, step.expect))}, seen errno %ld\\n", code);'
            yield "\t\t\tbad = 1;"
            yield "\t\t}"
        for check in step.checks:
            memory = "attr" if check.pointer is None else names[check.pointer]
            if check.pointer is not None and check.inner is not None:
                memory = within[check.pointer, check.inner]
            size = len(check.want) if check.id is None else 4
            yield "\t\tif (!code) {"
            if check.id is None:
                yield f"\t\t\tstatic const unsigned char want[{size}]{_bytes(check.want)};"
            else:
                yield f"\t\t\tconst unsigned char *want = (unsigned char *)&id[{check.id}];"
            yield f"\t\t\tbad |= check({_string(f'{step.name} {check.name}')}, {memory} + {check.offset}, want, {size});"
            yield "\t\t}"
        if any(index in sources(later) for later in case.steps[index + 1 :]):
            yield "\t\tif (fd[%d] < 0) {" % index  # noqa: UP031 (braces)
            yield '\t\t\tprintf("cannot go on\\n");'
            yield f"\t\t\treturn bad ? 1 : {2 if not step.expect else 1};"
            yield "\t\t}"
        yield "\t}"
    yield '\tprintf(bad ? "reproduced\\n" : "all as expected\\n");'
    yield "\treturn bad;"


def _piece(name: str, data: bytes, size: int) -> Iterator[str]:
    yield f"\t\tstatic const unsigned char {name}_data[{max(len(data), 1)}]{_bytes(data)};"
    yield f"\t\tunsigned char *{name} = edge({name}_data, {len(data)}, {size});"


def _memory(name: str, data: Data, made: list[str]) -> Generator[str, None, dict[int, str]]:
    """The lines; returned: the names of the memory that it points to, by offset."""
    yield from _piece(name, data.data, len(data.data))
    inner: dict[int, str] = {}
    for offset, more in data.pointers.items():
        if isinstance(more, Data):
            inner[offset] = f"m{len(made)}"
            made.append(inner[offset])
            yield from _memory(inner[offset], more, made)
    yield from _patches(name, len(data.data), data.pointers, data.fds, inner)
    return inner


def _patches(
    name: str, size: int, pointers: Mapping[int, Target], fds: Mapping[int, FdSource], names: Mapping[int, str]
) -> Iterator[str]:
    for offset, target in pointers.items():
        if isinstance(target, Data | Pin):
            value = f"(unsigned long){names[offset]}"
        elif isinstance(target, Part):
            value = f"(unsigned long){names[target.pointer]} + {target.offset}"
        else:
            value = f"0x{int(target):x}UL"
        if offset < size:
            yield f"\t\tput({name} + {offset}, {value}, {min(8, size - offset)});"
    for offset, source in fds.items():
        value = f"opened({_string(source)})" if isinstance(source, str) else f"fd[{source}]"
        if offset < size:
            yield f"\t\tput({name} + {offset}, {value}, {min(4, size - offset)});"


def _bytes(data: bytes) -> str:
    if not any(data):
        return " = { 0 }"
    return f" = {{ {', '.join(f'0x{b:02x}' for b in data.rstrip(bytes(1)) or bytes(1))} }}"
