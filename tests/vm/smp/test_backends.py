"""Every backend on two processors that run its program at once: no count is lost, neither at entry nor at return."""

from __future__ import annotations

import os

import pytest

from rawkm.backend.model import Need
from rawkm.session import CountSession
from rawkm.targets import Pattern, resolve

from ..lib import CALL, KERNEL
from ..links.test_backends import BOTH, IDS, named
from .test_smp import both

N = 40
CALLS = 2000


@pytest.mark.parametrize(("backend", "at_return"), BOTH, ids=IDS)
def test_exact_on_two_processors(backend: str, at_return: bool) -> None:
    assert os.cpu_count() == 2
    found = resolve(KERNEL, [Pattern("tcp_v4_connect"), Pattern(CALL)], addresses=True)
    assert len(found.ok) == 2, found.missing
    order = sorted(found.ok, key=lambda target: target.name != "tcp_v4_connect")
    with CountSession(KERNEL, order, need=Need(at_return=at_return)) as session:
        session.attach(backend=named(backend, at_return))
        assert len(session.attached) == 2, session.culprits
        session.activate()
        both("connect", N)
        both("getppid", CALLS)
        account = session.finish()
        assert session.counts() == [2 * N, 2 * CALLS]
        assert account.missed in (0, None)
        assert account.recursion_misses in (0, None)
