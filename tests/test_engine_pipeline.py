from __future__ import annotations

import threading
import time

import pytest

from irtool.engine.pipeline import READ_AHEAD, WRITE_BEHIND, pipelined


def test_results_come_in_order_with_the_error_of_each_stage():
    def fail_at(stage, wrong):
        def run(job, value=None):
            if job == wrong:
                raise ValueError(stage)
            return job

        return run

    done = list(pipelined(range(6), fail_at("read", 1), fail_at("work", 2), fail_at("write", 4)))
    assert [d.item for d in done] == list(range(6))
    assert [str(d.error) if d.error else d.result for d in done] == [0, "read", "work", 3, "write", 5]


def test_the_next_is_read_and_the_last_is_written_while_one_is_worked_on():
    read, write = [threading.Event() for _ in range(3)], threading.Event()
    seen = []

    def reading(job):
        read[job].set()

    def working(job, _):
        if job < 2:
            seen.append(read[job + 1].wait(10))  # the next picture is read meanwhile
        if job == 1:
            write.set()  # the first one waits in `writing` for this: it is written while the second is worked on

    def writing(job, _):
        if job == 0:
            seen.append(write.wait(10))

    assert len(list(pipelined(range(3), reading, working, writing))) == 3
    assert seen == [True, True, True]


def test_few_pictures_are_held_at_a_time():
    held, most, lock = 0, 0, threading.Lock()

    def count(change):
        nonlocal held, most
        with lock:
            held += change
            most = max(most, held)

    def writing(job, _):
        time.sleep(0.005)
        count(-1)

    list(pipelined(range(30), lambda job: count(1), lambda job, _: None, writing))
    assert held == 0
    # One in each stage, those waiting before and behind, and one that is being handed on.
    assert most <= 3 + READ_AHEAD + WRITE_BEHIND


def test_an_interruption_finishes_what_is_being_written_and_begins_nothing_new():
    read, written = [], []

    def working(job, _):
        if job == 2:
            raise KeyboardInterrupt

    def writing(job, _):
        time.sleep(0.05)
        written.append(job)

    with pytest.raises(KeyboardInterrupt):
        list(pipelined(range(100), read.append, working, writing))
    assert written == [0, 1]
    assert len(read) <= 5


def test_no_jobs_is_no_trouble():
    assert list(pipelined([], lambda job: 1, lambda job, a: 1, lambda job, b: 1)) == []
