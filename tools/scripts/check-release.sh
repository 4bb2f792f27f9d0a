#!/bin/sh
# Builds what is released from two copies of the last commit, in different
# directories and with a build cache of their own for the second, and compares them.
# Usage: check-release.sh VERSION TOOLS. PLATFORMS="linux/amd64 …" builds fewer.
set -eu
version=$1 tools=$(cd "$2" && pwd)
temp=$(mktemp -d)
trap 'chmod -R u+w "$temp"; rm -rf "$temp"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

for copy in a some/where/else; do
    mkdir -p "$temp/$copy"
    git archive HEAD | tar -x -C "$temp/$copy"
done
(cd "$temp/a" && ./tools/scripts/release.sh "$version" dist "$tools" >/dev/null)
(cd "$temp/some/where/else" && umask 077 && TZ=Asia/Tokyo GOCACHE="$temp/cache" \
    ./tools/scripts/release.sh "$version" dist "$tools" >/dev/null)
diff -r "$temp/a/dist/release" "$temp/some/where/else/dist/release"
cat "$temp/a/dist/release/SHA256SUMS"
