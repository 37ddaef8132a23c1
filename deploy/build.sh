#!/usr/bin/env bash
# Builds the image: deploy/build.sh gpu|cpu REGISTRY/persona:VERSION
# The digest of its base lies in deploy/base.digest, to be kept in version control: all builds then stand on the
# same base. Where there is none, the registry is asked for it; remove the file to take up a newer base.
set -euo pipefail
[ $# = 2 ] && [[ "$1" =~ ^(gpu|cpu)$ ]] || { echo "usage: deploy/build.sh gpu|cpu IMAGE" >&2; exit 2; }
cd "$(dirname "$0")/.."

base=$(sed -n 's/^FROM \(.*\)@.*/\1/p' deploy/Dockerfile)
if [ ! -e deploy/base.digest ]; then
    digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
else
    digest=$(cat deploy/base.digest)
fi
[[ "$digest" =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "deploy/base.digest: no digest: $digest" >&2; exit 1; }
echo "$digest" > deploy/base.digest

# BuildKit alone reads Dockerfile.dockerignore.
DOCKER_BUILDKIT=1 docker build -f deploy/Dockerfile --build-arg ENGINE="$1" --build-arg BASE_DIGEST="$digest" -t "$2" .
