"""Follows Ray Tune's trials: a line for people, a run in MLflow for each of them."""

from collections.abc import Callable
from typing import Any, ClassVar

from ray.tune import Callback

from training.tracking import TrackedRun, tracked_run


class TrialLog(Callback):
    """Called by Ray Tune in the driver.

    Ray Tune pickles its callbacks with its own state, and a tuning that goes on has the pickled
    one: what cannot be pickled, `listener` and open runs, is not in it.
    """

    listener: ClassVar[Callable[[str], None]] = print  # of the tuning that runs in this process

    def __init__(self, name: str) -> None:
        """name: of the tuning, in front of its trials' names in MLflow."""
        self._name = name
        self._run_ids: dict[str, str] = {}
        self._open: dict[str, TrackedRun] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def get_state(self) -> dict[str, Any]:
        """Which run in MLflow is each trial's."""
        return {"run_ids": dict(self._run_ids)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_state` returned."""
        self._run_ids = dict(state["run_ids"])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A run for a trial that begins, or its own for one that goes on."""
        self._run(trial).log_params(dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch."""
        metrics = {"loss": result["loss"], "ndcg@10": result["ndcg"]}
        self._run(trial).log_epoch(result["epoch"], metrics)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The end of a trial, its own or because it fell behind."""
        best = trial.metric_analysis["ndcg"]["max"]
        self._run(trial).finish({"best_ndcg@10": best})
        number = 1 + sum(other.is_finished() for other in trials if other is not trial)
        epochs = trial.last_result["epoch"]
        type(self).listener(
            f"trial {number:>3}  validation NDCG@10 {best:.4f} after {epochs} epochs"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that failed."""
        self._run(trial).fail()
        type(self).listener(f"trial {trial.trial_id} failed")

    def _run(self, trial: Any) -> TrackedRun:
        if trial.trial_id not in self._open:
            run = tracked_run(f"{self._name}-{trial.trial_id}", self._run_ids.get(trial.trial_id))
            self._open[trial.trial_id] = run
            self._run_ids[trial.trial_id] = run.run_id
        return self._open[trial.trial_id]
