#!/bin/sh
# Puts Prometheus's programs, prometheus and promtool, into a directory, from
# Debian's package, which is unpacked, not installed: the package would start a
# server on port 9090 that nobody here asked for. Does nothing where they are there.
# Usage: prometheus.sh DIR
set -eu

dir=$1
for program in prometheus promtool; do
    [ -x "$dir/$program" ] && continue
    if path=$(command -v "$program"); then
        ln -sf "$path" "$dir/$program"
    fi
done
[ -x "$dir/prometheus" ] && [ -x "$dir/promtool" ] && exit 0

give_up() {
    echo "Prometheus is not there: $1." >&2
    echo 'The tests that ask one are skipped; to have them run, put prometheus and promtool on the PATH.' >&2
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || give_up 'this machine has no Debian packages'
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get -qq download prometheus 2>/dev/null); }
if ! fetch; then
    # The lists of packages are old, or were never read.
    [ "$(id -u)" -eq 0 ] && apt-get -qq update
    fetch || give_up "'apt-get download prometheus' fails"
fi
dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
for program in prometheus promtool; do
    mv "$work/unpacked/usr/bin/$program" "$dir/$program.new"
    mv "$dir/$program.new" "$dir/$program"
done
