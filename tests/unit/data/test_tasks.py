import pytest

from training.data.tasks import ROWS_PER_TASK, n_tasks


@pytest.mark.parametrize(
    ("rows", "cpus", "tasks"),
    [(1, 2, 1), (8, 2, 4), (40, 2, 8), (160, 2, 32), (40, 64, 40), (3, 1, 2)],
)
def test_rows_go_into_few_tasks_but_leave_no_cpu_without(rows, cpus, tasks):
    assert n_tasks(rows, cpus) == tasks
    assert -(-rows // tasks) <= ROWS_PER_TASK
