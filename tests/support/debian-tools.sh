#!/bin/sh
# Installs WSClean, AOFlagger and the named programs from Debian's packages, or says what to install.
set -eu
missing=""
for program in wsclean aoflagger "$@"; do command -v "$program" >/dev/null || missing="$missing $program"; done
[ -n "$missing" ] || exit 0
if command -v apt-get >/dev/null; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if [ -z "$sudo" ] || $sudo true 2>/dev/null; then
    echo "Installing$missing from Debian's packages"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
  fi
fi
echo "Not found:$missing. contimg images with WSClean and flags with AOFlagger." >&2
echo "Ask an administrator for: apt-get install$missing (Debian 12 or later, Ubuntu 22.04 or later)." >&2
exit 1
