"""The processes that a training runs on, and whether each has a GPU."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import ray
import torch
from ray import train

from training.data.ray_session import ray_session
from training.errors import UserError

CPU_WORKERS = 2  # where nobody says how many

Report = Callable[[str], None]


@dataclass(frozen=True)
class Workers:
    """count: processes that train in step. least: the fewest to go on with where some were lost;
    None waits for all. most_failures: times that the training begins again from its last
    checkpoint. gpu: whether each has a GPU.
    """

    count: int
    least: int | None = None
    most_failures: int = 3
    gpu: bool = False

    def scaling(self, cpus: int) -> train.ScalingConfig:
        """What Ray Train is asked for, in a cluster of `cpus` CPUs.

        One CPU for each worker where there are enough; one is always left for Ray Data.
        """
        resources = {"CPU": min(1.0, (cpus - 1) / self.count)}
        if self.gpu:
            resources["GPU"] = 1
        return train.ScalingConfig(
            num_workers=self.count if self.least is None else (self.least, self.count),
            use_gpu=self.gpu,
            resources_per_worker=resources,
        )

    @property
    def backend(self) -> str:
        """What the workers exchange gradients through."""
        return "nccl" if self.gpu else "gloo"


def choose_workers(
    count: int | None, least: int | None, most_failures: int, gpu: bool | None, report: Report
) -> Workers:
    """The workers of a training, on GPUs or on CPUs.

    count: None is one for each GPU, or two without. gpu: None takes GPUs where Ray has one for
    every worker. UserError for GPUs that there will never be.
    """
    seen = 0 if gpu is False else gpus_seen()
    if gpu and not torch.backends.cuda.is_built():
        raise UserError("--gpu: this PyTorch was built without CUDA, install one with it")
    if gpu and seen < (count or 1) and not _joins():
        raise UserError(f"--gpu: each of {count or 1} workers needs a GPU, there are {seen}")
    if gpu is None:
        gpu = seen > 0 and seen >= (count or 1)
        if seen and not gpu:
            report(f"{count} workers need a GPU each, there are {seen}: training on CPUs")
    count = count or (max(seen, 1) if gpu else CPU_WORKERS)
    if least is not None and least > count:
        raise UserError(f"--min-workers {least}: more than the {count} of --workers")
    if gpu:
        report(f"training on {count} GPU{'s' if count > 1 else ''}")
    return Workers(count, least, most_failures, gpu)


def gpus_seen() -> int:
    """GPUs of the Ray that is joined, or of this machine; 0 where PyTorch could not use them."""
    if not torch.backends.cuda.is_built():
        return 0
    if not _joins():
        return torch.cuda.device_count()
    with ray_session(0):
        return int(ray.cluster_resources().get("GPU", 0))


def _joins() -> bool:
    """Whether a training runs on a Ray that is there already, which may grow."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
