#!/bin/sh
# Makes sure that promtool and prometheus are in DIR, for tests; does nothing
# where they are. Nothing is installed on the machine and no service is started:
# Debian's package is unpacked, not installed. What is on the PATH already is used
# by a link.
# Usage: prometheus.sh DIR
set -eu
dir=$1

usable() {
    "$1/promtool" --version >/dev/null 2>&1 && "$1/prometheus" --version >/dev/null 2>&1
}

usable "$dir" && exit 0
mkdir -p "$dir"

if promtool=$(command -v promtool) && prometheus=$(command -v prometheus); then
    ln -sf "$promtool" "$dir/promtool"
    ln -sf "$prometheus" "$dir/prometheus"
elif command -v apt-get >/dev/null; then
    echo "promtool is missing: unpacking Debian's package into $dir" >&2
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    # Readable for the user _apt, as whom apt-get downloads when root calls it.
    chmod 755 "$temp"
    if [ "$(id -u)" -eq 0 ]; then
        chown _apt "$temp" 2>/dev/null || true
    fi
    if ! (cd "$temp" && apt-get -qq download prometheus 2>/dev/null); then
        # A fresh machine has no package lists.
        sudo=
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        $sudo apt-get -qq -o DPkg::Lock::Timeout=300 update
        (cd "$temp" && apt-get -qq download prometheus)
    fi
    dpkg-deb -x "$temp"/prometheus_*.deb "$temp/root"
    cp "$temp/root/usr/bin/promtool" "$temp/root/usr/bin/prometheus" "$dir/"
elif command -v brew >/dev/null; then
    brew install prometheus
    ln -sf "$(command -v promtool)" "$dir/promtool"
    ln -sf "$(command -v prometheus)" "$dir/prometheus"
fi

usable "$dir" && exit 0
cat >&2 <<'HELP'
promtool and prometheus were not found, and this machine has no package manager
that this script knows. Install Prometheus, 2.40 or newer, so that both are on the
PATH: https://prometheus.io/download/
HELP
exit 1
