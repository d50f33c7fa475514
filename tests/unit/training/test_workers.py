"""How many workers train, on GPUs or not; no GPU is needed to ask for one."""

import pytest
import torch

from training import workers
from training.errors import UserError
from training.workers import Workers, choose_workers


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs are seen by a PyTorch that could use them."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(workers.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def choose(count=None, least=None, gpu=None, report=print):
    return choose_workers(count, least, 3, gpu, report)


@pytest.mark.parametrize(
    ("seen", "asked", "gpu", "chosen"),
    [
        (0, None, None, (2, False)),
        (0, 5, None, (5, False)),
        (1, None, None, (1, True)),
        (4, None, None, (4, True)),
        (4, 2, None, (2, True)),
        (1, 2, None, (2, False)),
        (4, None, False, (2, False)),
        (2, None, True, (2, True)),
        (2, 1, True, (1, True)),
    ],
)
def test_workers_get_gpus_where_there_is_one_for_each(gpus, seen, asked, gpu, chosen):
    gpus(seen)
    found = choose(asked, gpu=gpu)
    assert (found.count, found.gpu) == chosen


def test_too_few_gpus_are_said_and_left_alone(gpus):
    gpus(1)
    lines = []
    assert not choose(2, report=lines.append).gpu
    assert lines == ["2 workers need a GPU each, there are 1: training on CPUs"]


def test_gpus_that_will_never_be_there_are_refused(gpus, monkeypatch):
    gpus(1)
    with pytest.raises(UserError, match="--gpu: each of 2 workers needs a GPU, there are 1"):
        choose(2, gpu=True)
    # A cluster may add them.
    monkeypatch.setattr(workers, "gpus_seen", lambda: 0)
    monkeypatch.setenv("RAY_ADDRESS", "ray:6379")
    assert choose(2, gpu=True) == Workers(2, None, 3, gpu=True)
    assert choose(gpu=True).count == 1


def test_a_pytorch_without_cuda_has_no_gpus(gpus, monkeypatch):
    gpus(1)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert not choose().gpu
    with pytest.raises(UserError, match="--gpu: this PyTorch was built without CUDA"):
        choose(gpu=True)


def test_no_more_can_be_the_fewest(gpus):
    gpus(0)
    with pytest.raises(UserError, match="--min-workers 3: more than the 2 of --workers"):
        choose(least=3)


def test_ray_train_is_asked_for_cpus_and_for_a_gpu_each():
    plain = Workers(4).scaling(cpus=3)
    assert plain.num_workers == 4 and not plain.use_gpu
    assert plain.resources_per_worker == {"CPU": 0.5}  # one of the three is left
    wide = Workers(2, least=1, gpu=True).scaling(cpus=16)
    assert wide.num_workers == (1, 2) and wide.elasticity_enabled and wide.use_gpu
    assert wide.resources_per_worker == {"CPU": 1.0, "GPU": 1}
    assert (Workers(1).backend, Workers(1, gpu=True).backend) == ("gloo", "nccl")
