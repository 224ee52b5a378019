#!/usr/bin/env bash
# Makes a base image from Debian's packages, for a machine that reaches no image registry:
#   tools/local_base.sh fairlead-base:local && make images BASE=fairlead-base:local
# Needs root, mmdebstrap and a Docker engine. The machine's own certificate authorities go into it.
# The packages are unpacked and not configured, which takes a quarter of the time: nothing in the images needs more.
set -euo pipefail
tag=${1:?usage: tools/local_base.sh TAG}
bundle=/etc/ssl/certs/ca-certificates.crt
PATH=$PATH:/usr/sbin:/sbin
log=$(mktemp)
trap 'rm -f "$log"' EXIT
packages=base-files,bash,ca-certificates,coreutils,dash,diffutils,findutils,grep,gzip,libc-bin,libstdc++6,mawk
packages+=,python3,python3-pip,sed,tar
# The lists of Debian say in the bill of materials which package a file is from.
lists='cd "$1/var/lib/dpkg" && for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -f "$deb" Package Version Architecture && echo
  dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -n "s/^\.\(.*[^/]\)$/\1/p" >"info/$(dpkg-deb -f "$deb" Package).list"; done >status'
mmdebstrap --quiet --variant=extract --include="$packages" --extract-hook="$lists" \
  --extract-hook="upload $bundle $bundle" --extract-hook='ln -s mawk "$1/usr/bin/awk"' bookworm - 2>"$log" |
  docker import -c "ENV LANG=C.UTF-8" -c "ENV PIP_CERT=$bundle" - "$tag" >/dev/null ||
  { tail -20 "$log" >&2; echo "error: mmdebstrap failed" >&2; exit 1; }
