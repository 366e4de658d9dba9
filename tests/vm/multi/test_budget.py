"""count --budget: what is too hot is muted, and the others stay exact."""

from __future__ import annotations

from ..lib import CALL, Running, Worker, rawkm

HOT, COOL = CALL, "tcp_v4_connect"


def test_the_hot_one_is_muted_the_other_stays_exact() -> None:
    """Storms of one system call until something is done about it, and connections: with a tree and without."""
    for scope in ([], ["-a"]):
        with Worker() as worker:
            argv = ["count", HOT, COOL, "--budget", "0.5", "--json", *scope, "--", *worker.argv]
            with Running(*argv, fds=worker.fds) as running:
                worker.do("connect 5")
                storms = 0
                while "is muted" not in running.said():
                    assert storms < 100
                    worker.do("getppid 20000")
                    storms += 1
                worker.do("getppid 20000", "connect 5")
                storms += 1
                worker.stop()
                done = running.end()
        assert done.status == 0, done
        rows = {row["function"]: row for row in done.of("count")}
        assert set(rows) == {HOT, COOL}, "the function that the cost is measured with is nobody's"
        assert rows[COOL]["count"] == 10 and rows[COOL]["incomplete"] is False, done
        (budget,) = done.of("budget")
        assert 0 < rows[HOT]["count"] < 20_000 * storms and rows[HOT]["incomplete"] is True, (budget, done)
        assert budget["muted"] == [HOT]
        assert budget["percent"] == 0.5 < budget["most_percent"]
        assert budget["hit_ns"] > 10
        assert done.summary["attached"] == 2
        assert done.summary["hits"] == rows[HOT]["count"] + 10
        assert any(HOT in note and "muted" in note for note in done.notes), done


def test_within_the_budget_everything_is_exact() -> None:
    with Worker() as worker:
        argv = ["count", HOT, "tcp_v4_*", "--budget", "100", "--json", "--", *worker.argv]
        with Running(*argv, fds=worker.fds) as running:
            worker.do("getppid 30000", "connect 5")
            worker.stop()
            done = running.end()
    assert done.counts[HOT] == 30_000 and done.counts[COOL] == 5, done
    assert not any(row["incomplete"] for row in done.of("count"))
    assert done.of("budget")[0]["muted"] == []


def test_its_own_function_is_left_to_it() -> None:
    sentence = rawkm("count", "bpf_get_numa_node_id", "--unsafe", "--budget", "1", "-d", "1").refused(2)
    assert "bpf_get_numa_node_id" in sentence
