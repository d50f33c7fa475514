#!/usr/bin/env bash
# Builds the image and serves from it, without Docker and without a registry: a Debian root with its
# Python stands in for the base image, buildah builds, containerd runs. Says what it skipped.
#
#   bash k8s/image-check.sh [base] [build] [serve]     all three by default
#
# Everything is kept under WORK and removed at the end; KEEP=1 leaves it, for the next step or for
# going on with a build that was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

BASE=docker.io/library/python:3.11-slim-bookworm
IMAGE=docker.io/library/${IMAGE:-marquee:0.1.0}
WORK=${WORK:-$(mktemp -d /var/tmp/marquee-image.XXXXXX)}
PORT=${PORT:-18573}

# Layers upon each other where the kernel can, whole copies where it cannot.
overlays() {
  local try=$WORK/try
  mkdir -p "$try"/{lower,upper,work,merged}
  mount -t overlay overlay "$try/merged" \
    -o "lowerdir=$try/lower,upperdir=$try/upper,workdir=$try/work" 2>/dev/null &&
    umount "$try/merged"
}
if overlays; then driver=overlay snapshotter=overlayfs; else driver=vfs snapshotter=native; fi
buildah=(buildah --storage-driver="$driver" --root "$WORK/storage" --runroot "$WORK/run")
ctr=(ctr --address "$WORK/containerd.sock" --namespace marquee)
containerd_pid=

skip() {
  echo "image-check: skipped $1: $2"
  exit 0
}

# The container of this run, or of one that was interrupted.
forget() {
  "${ctr[@]}" tasks delete --force check >/dev/null 2>&1 || true
  "${ctr[@]}" containers delete check >/dev/null 2>&1 || true
}

clean() {
  if [ -n "$containerd_pid" ]; then
    forget
    kill "$containerd_pid" 2>/dev/null || true
    wait "$containerd_pid" 2>/dev/null || true
  fi
  umount "$WORK/storage/overlay" 2>/dev/null || true # buildah's own, on itself
  [ "${KEEP:-0}" = 1 ] || rm -rf "$WORK" 2>/dev/null || true
}
trap clean EXIT

[ "$(id -u)" = 0 ] || skip everything "needs root"
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || skip everything "$tool is not installed"
done

# Where this machine's pip finds packages: its settings as one file, and the local paths they name.
mkdir -p "$WORK"
{
  echo "[global]"
  python3 -m pip config list 2>/dev/null |
    sed -nE "s/^[^.]*\.([a-z-]+)='(.*)'$/\1 = \2/p" | awk '!seen[$1]++'
} >"$WORK/pip.conf"
mounts=(--volume "$WORK/pip.conf:/etc/pip.conf:ro")
for path in /etc/ssl/certs $(grep -oE "(file://)?/[A-Za-z0-9._/-]+" "$WORK/pip.conf" |
  sed -E 's,^file://(.*)/[^/]+$,\1,' | sort -u); do # an index's files lie beside its pages
  [ ! -e "$path" ] || mounts+=(--volume "$path:$path:ro")
done

# The mirror that this machine's own packages come from.
apt_mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -v '^ *#' | grep -oE 'https?://[^ ]+' | head -n 1
}

base_image() {
  echo "image-check: a Debian root for $BASE"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    bookworm "$WORK/root" "${MIRROR:-$(apt_mirror)}" >"$WORK/debootstrap.log"
  rm -rf "$WORK"/root/var/cache/apt/archives/*.deb
  local container
  container=$("${buildah[@]}" from scratch)
  "${buildah[@]}" add --quiet "$container" "$WORK/root" / >/dev/null
  "${buildah[@]}" commit --quiet --rm "$container" "$BASE" >/dev/null
  rm -rf "$WORK/root"
}

build() {
  echo "image-check: building $IMAGE"
  "${buildah[@]}" bud --isolation=chroot --pull-never --network=host --layers "${mounts[@]}" \
    --build-arg "TORCH_INDEX_URL=${TORCH_INDEX_URL:-}" --tag "$IMAGE" . >"$WORK/build.log" 2>&1 || {
    tail -n 40 "$WORK/build.log"
    exit 1
  }
  local mounted
  mounted=$("${buildah[@]}" mount "$("${buildah[@]}" from --pull-never "$IMAGE")")
  echo "image-check: $(du -sm --exclude=proc "$mounted" | cut -f1) MiB unpacked;" \
    "compilers and package tools in it: $(cd "$mounted" &&
      find usr/bin opt/venv/bin -name 'gcc*' -o -name 'pip*' -o -name 'make' | tr '\n' ' ')"
  "${buildah[@]}" rm --all >/dev/null
}

load() {
  "${buildah[@]}" push --quiet --disable-compression "$IMAGE" "oci-archive:$WORK/image.tar:$IMAGE"
  "${ctr[@]}" images import --snapshotter "$snapshotter" "$WORK/image.tar" >/dev/null
  rm "$WORK/image.tar"
}

serve() {
  command -v containerd >/dev/null || skip "running it" "containerd is not installed"
  containerd --root "$WORK/containerd" --state "$WORK/containerd-run" \
    --address "$WORK/containerd.sock" --log-level error >"$WORK/containerd.log" 2>&1 &
  containerd_pid=$!
  for _ in $(seq 50); do "${ctr[@]}" version >/dev/null 2>&1 && break || sleep 0.2; done
  "${ctr[@]}" images list --quiet | grep -qx "$IMAGE" || load
  echo "image-check: running it"
  forget
  local script="marquee retrain --work /tmp/retrain --users 300 --items 300 --events 15000 --epochs 1 \
    --only-if-empty &&
    exec marquee serve --store /tmp/store --state-dir /tmp/state --port $PORT"
  "${ctr[@]}" run --detach --net-host --snapshotter "$snapshotter" --read-only \
    --mount type=tmpfs,src=tmpfs,dst=/tmp,options=mode=1777 \
    --mount type=tmpfs,src=tmpfs,dst=/dev/shm,options=mode=1777:size=512m \
    --env MARQUEE_STORE=/tmp/store --env RAY_AUTH_MODE=disabled --env HOME=/tmp \
    --env MLFLOW_TRACKING_URI=sqlite:////tmp/mlflow.db --cwd /app \
    --log-uri "file://$WORK/serve.log" "$IMAGE" check bash -c "$script"
  for _ in $(seq 600); do
    curl -fs -o /dev/null "http://127.0.0.1:$PORT/ready" && break
    "${ctr[@]}" tasks list | grep -q "^check .*RUNNING" || break
    sleep 1
  done
  curl -fsS "http://127.0.0.1:$PORT/recommend" -d '{"user_id": 1, "num_recommendations": 3}' || {
    tail -n 40 "$WORK/serve.log"
    exit 1
  }
  echo
  "${ctr[@]}" tasks exec --exec-id probe check bash -c \
    '[ "$(id -u):$(id -g)" = 1000:1000 ] && ! touch /app/written 2>/dev/null && touch /tmp/written'
  echo "image-check: served, as user 1000, on a root that nobody can write"
}

[ $# -gt 0 ] || set -- base build serve
for step in "$@"; do
  case $step in
    base) "${buildah[@]}" inspect --type image "$BASE" >/dev/null 2>&1 || base_image ;;
    build | serve) "$step" ;;
    *) echo "image-check: there is no step $step, only base, build and serve" >&2 && exit 2 ;;
  esac
done
