#!/usr/bin/env bash
# Makes a base image from Debian's packages, for a machine that reaches no image registry:
#   tools/local_base.sh fairlead-base:local && make images BASE=fairlead-base:local
# Needs root, debootstrap and a Docker engine. The machine's own certificate authorities go into it.
set -euo pipefail
tag=${1:?usage: tools/local_base.sh TAG}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >"$root.log" 2>&1 ||
  { tail -20 "$root.log" >&2; echo "error: debootstrap failed" >&2; exit 1; }
rm -f "$root.log"
bundle=/etc/ssl/certs/ca-certificates.crt
cp "$bundle" "$root$bundle"
tar -C "$root" -c . | docker import -c "ENV LANG=C.UTF-8" -c "ENV PIP_CERT=$bundle" - "$tag" >/dev/null
