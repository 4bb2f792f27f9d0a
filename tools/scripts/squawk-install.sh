#!/bin/sh
# Puts the squawk that tools/squawk pins at BIN/squawk. It comes by npm, as a
# program inside a package; npm is needed for that only, and is installed on a
# Debian machine where this runs as root.
# Usage: squawk-install.sh BIN
set -eu
bin=$1
cd "$(dirname "$0")/../.."
if ! command -v npm >/dev/null; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        cat >&2 <<'HELP'
squawk, which lints the migrations, comes by npm, and npm is missing. Install it:
  Debian, Ubuntu   sudo apt-get install npm
  Fedora           sudo dnf install npm
  macOS            brew install node
HELP
        exit 1
    fi
    echo "npm is missing: installing it" >&2
    apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    $apt update
    $apt install -y --no-install-recommends npm >/dev/null
fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cp tools/squawk/package.json "$temp"
# The version is exact, and its programs for each platform are of that version. No
# script of a package is run.
npm install --prefix "$temp" --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
mkdir -p "$bin"
for program in "$temp"/node_modules/@squawk-cli/*/bin/squawk; do
    if [ ! -f "$program" ]; then
        echo "squawk has no program for $(uname -sm)" >&2
        exit 1
    fi
    install -m 755 "$program" "$bin/squawk"
done
