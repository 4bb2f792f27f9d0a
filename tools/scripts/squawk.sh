#!/bin/sh
# Lints the migrations with squawk, and those that are printed for targets. It knows no
# goose, so it is given the Up part of each file alone, the rest blanked so that line
# numbers stay, and is told which ones goose runs in a transaction.
# Usage: squawk.sh SQUAWK
set -eu
squawk=$1
cd "$(dirname "$0")/../.."
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
mkdir -p "$temp/migrations" "$temp/internal/fleet/queue/migrations" "$temp/internal/testdb/targets"
failed=0
for file in migrations/*.sql internal/fleet/queue/migrations/*.sql internal/testdb/targets/*.sql; do
    awk '/^-- \+goose Up/ { up = 1 } /^-- \+goose Down/ { up = 0 } { print (up || /^-- squawk-ignore-file / ? $0 : "") }' "$file" >"$temp/$file"
    transaction=--assume-in-transaction
    if grep -q '^-- +goose NO TRANSACTION' "$file"; then
        transaction=
    fi
    number=${file#migrations/}
    number=${number%%_*}
    # squawk takes the rules on its command line in place of those in its file.
    excluded=$(awk -v number="$number" '
        FNR == NR { if (match($0, /^ *"[a-z-]+"/)) { gsub(/[ ",]/, ""); print } next }
        $1 == number { print $2 }' tools/squawk/squawk.toml tools/squawk/exceptions | paste -sd, -)
    # shellcheck disable=SC2086 # an option or nothing
    (cd "$temp" && "$squawk" --config "$OLDPWD/tools/squawk/squawk.toml" --exclude "$excluded" $transaction "$file") >"$temp/out" 2>&1 || {
        cat "$temp/out" >&2
        failed=1
    }
done
exit $failed
