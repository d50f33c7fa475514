"""MLflow, as much of it as training needs: one run with parameters and per-epoch metrics."""

import logging
import os
from pathlib import Path
from typing import Any

from training.errors import UserError

EXPERIMENT = "marquee"
_MAX_PARAM_LENGTH = 500


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or mlflow.db in the current directory, where `mlflow ui` looks too."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


class TrackingError(Exception):
    """The tracking server cannot be used. The message is one line."""


class TrackedRun:
    """A run in MLflow, new or gone on with."""

    def __init__(self, name: str, run_id: str | None) -> None:
        """name: of a new run. run_id: the run to go on with; one that is gone is begun anew.

        TrackingError when there is no server or database to be reached.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for noisy in ("mlflow", "alembic"):  # importing mlflow makes them speak
            logging.getLogger(noisy).setLevel(logging.WARNING)
        try:
            self._client = MlflowClient(tracking_uri())
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = (
                found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
            )
        except MlflowException as error:
            raise TrackingError(str(error).splitlines()[0]) from error
        if run_id is not None:
            try:
                self._client.update_run(run_id, status="RUNNING")
                self.run_id = run_id
                return
            except MlflowException:
                pass  # another server, or a database that was thrown away
        self.run_id = self._client.create_run(experiment, run_name=name).info.run_id

    def log_params(self, params: dict[str, Any]) -> None:
        """Record settings; one that the run has already is left as it is."""
        known = self._client.get_run(self.run_id).data.params
        for name, value in params.items():
            if name not in known:
                self._client.log_param(self.run_id, name, str(value)[:_MAX_PARAM_LENGTH])

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record an epoch's metrics; `@` in a name becomes `_at_`, which MLflow can store."""
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name.replace("@", "_at_"), value, step=epoch)

    def finish(self, metrics: dict[str, float]) -> None:
        """Record the final metrics and mark the run as finished."""
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name.replace("@", "_at_"), value)
        self._client.set_terminated(self.run_id, "FINISHED")

    def fail(self) -> None:
        """Mark the run as failed."""
        self._client.set_terminated(self.run_id, "FAILED")


def tracked_run(name: str, run_id: str | None) -> TrackedRun:
    """A run in MLflow; UserError when that cannot be used. Arguments as TrackedRun has them."""
    try:
        return TrackedRun(name, run_id)
    except TrackingError as error:
        raise UserError(
            f"MLflow at {tracking_uri()} does not answer ({error}): check MLFLOW_TRACKING_URI"
        ) from error
