import pickle
from threading import Event

import pyarrow as pa
import pytest

from training.data.tasks import ROWS_PER_TASK, HeadStart, n_tasks, run_tasks

ROWS = [{"n": n} for n in range(5)]


def _doubled(batch, plan):
    plan.set()
    return pa.table({"result": [pickle.dumps(2 * n) for n in batch["n"].to_pylist()]})


@pytest.mark.parametrize("threads", [1, 2])
def test_a_head_start_does_all_rows_when_there_is_time(threads):
    with HeadStart(_doubled, ROWS, Event(), threads=threads) as head_start:
        assert sorted(head_start.results()) == [0, 2, 4, 6, 8]
        assert head_start.leave_rest() == []


def test_rows_that_a_head_start_leaves_and_those_it_did_are_all_rows():
    begun, go_on = Event(), Event()

    def slow(batch, plan):
        begun.set()
        go_on.wait(10)
        return _doubled(batch, plan)

    with HeadStart(slow, ROWS, Event()) as head_start:
        begun.wait(10)
        rest = head_start.leave_rest()
        go_on.set()
        assert head_start.results() == [0]
    assert rest == ROWS[1:]


def test_what_a_head_start_meets_is_raised_where_its_results_are_asked_for():
    with HeadStart(_doubled, ROWS, None) as head_start, pytest.raises(AttributeError):
        head_start.results()


def test_no_rows_need_no_ray():
    assert list(run_tasks(_doubled, [], None)) == []


@pytest.mark.parametrize(
    ("rows", "cpus", "tasks"),
    [(1, 2, 1), (8, 2, 8), (40, 2, 14), (160, 2, 32), (40, 64, 40), (3, 1, 3)],
)
def test_rows_go_into_few_tasks_but_leave_no_cpu_without(rows, cpus, tasks):
    assert n_tasks(rows, cpus) == tasks
    assert -(-rows // tasks) <= ROWS_PER_TASK
