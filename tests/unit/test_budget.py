"""Which functions are muted, when, and for how long."""

from __future__ import annotations

from rawkm.budget.control import FIRST_TRIAL, LAST_TRIAL, Budget


# A hit costs 1 µs, a muted one 0.2 µs; one CPU: 10,000 hits a second are 1 %.
def budget(percent: float, cpus: int = 1) -> Budget:
    return Budget(percent, cpus=cpus, hit=1e-6, muted_hit=2e-7)


def test_within_the_budget() -> None:
    b = budget(1.0)
    change = b.look(0.0, 1.0, [5000, 4000, 0])
    assert (change.muted, change.unmuted) == ([], [])
    assert round(change.share, 6) == 0.9
    assert b.ever == {}


def test_the_hottest_are_muted_and_no_more_than_needed() -> None:
    b = budget(1.0)
    change = b.look(0.0, 0.5, [500, 50_000, 2000, 40_000])
    assert round(change.share, 6) == 18.5
    # Muted, the two cost 2 % and 1.6 %: over the budget still, so the third goes, and the fourth.
    assert change.muted == [1, 3, 2, 0]
    # What would not make a difference stays exact.
    assert budget(1.0).look(0.0, 1.0, [200_000, 100]).muted == [0]
    b = budget(12.0)
    assert b.look(0.0, 0.5, [500, 50_000, 2000, 40_000]).muted == [1]
    assert round(b.helpless, 6) == 2.0
    assert b.ever == {1: 100_000.0}


def test_several_cpus_share_the_cost() -> None:
    assert budget(1.0, cpus=4).look(0.0, 1.0, [30_000]).muted == []
    assert budget(1.0, cpus=2).look(0.0, 1.0, [30_000]).muted == [0]


def test_muted_ones_are_tried_again_and_for_longer_each_time() -> None:
    b = budget(1.0)
    now, trials = 0.0, []
    while now < 200:
        loud = [0 if 0 in b.muted else 20_000]
        change = b.look(now, 0.25, loud)
        if change.unmuted:
            trials.append(now)
        now += 0.25
    gaps = [b - a for a, b in zip(trials, trials[1:], strict=False)]
    assert trials[0] == FIRST_TRIAL
    assert gaps[:3] == [4.25, 8.25, 16.25]
    assert max(gaps) <= LAST_TRIAL + 0.5
    assert len(trials) < 12


def test_a_calm_one_stays() -> None:
    b = budget(1.0)
    assert b.look(0.0, 0.25, [20_000]).muted == [0]
    assert b.look(1.0, 0.25, [3]).unmuted == []
    assert b.look(2.0, 0.25, [0]).unmuted == [0]
    for step in range(20):
        assert b.look(2.25 + step, 0.25, [10]).muted == []
    # Calm for longer than it was muted: it begins anew.
    assert b.look(30.0, 0.25, [20_000]).muted == [0]
    assert b.muted[0].hold == FIRST_TRIAL
    assert list(b.ever) == [0]


def test_where_muting_saves_nothing_that_can_be_measured() -> None:
    """It is done all the same, and known not to be enough."""
    b = Budget(1.0, cpus=1, hit=1e-6, muted_hit=3e-6)
    change = b.look(0.0, 1.0, [50_000, 10])
    assert change.muted == [0]
    assert round(change.share, 3) == 5.001
    assert 4 < b.helpless < 5


def test_what_cannot_be_helped_is_known() -> None:
    b = budget(1.0)
    b.look(0.0, 1.0, [100_000])
    assert round(b.helpless, 6) == 2.0
