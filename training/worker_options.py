"""Options of the commands that train on Ray Train workers."""

from typing import Annotated

import typer

WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", help="Ray Train workers; by default one for each GPU, two without."),
]
MinWorkers = Annotated[
    int | None,
    typer.Option(
        help="Go on with as few as these where some are lost, and grow again; by default all are "
        "waited for."
    ),
]
MaxFailures = Annotated[
    int, typer.Option(help="Times that lost workers are replaced, from the last checkpoint.")
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|s3://...",
        help="Where checkpoints go, which all nodes must reach; by default RUN/checkpoints.",
    ),
]
Gpu = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--no-gpu",
        help="A GPU for each worker, or none; by default where Ray sees enough of them. On a "
        "cluster that grows, --gpu makes it add them.",
    ),
]
