#!/bin/sh
# Fails when gen/ or explain_queries.sql is not what would be written today, and when a query
# does not prepare on a migrated database, and when gen/ imports anything of
# ours. Writes nothing into the tree.
# Usage: check-generated.sh BIN, where BIN holds sqlc, buf and the plugins.
set -eu
bin=$1
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
stale=0

"$bin/sqlc" diff || stale=1
# sqlc leaves the code of a file of queries that is gone.
for generated in gen/db/*.sql.go; do
    if [ ! -f "queries/$(basename "$generated" .go)" ]; then
        echo "$generated is of no file in queries/" >&2
        stale=1
    fi
done

"$bin/buf" generate proto --template proto/buf.gen.yaml --output "$temp"
diff -r "$temp/gen/nova" gen/nova || stale=1

./tools/scripts/explain.sh | diff - sql/runbook/explain_queries.sql || stale=1

if go list -deps ./gen/... | grep -E '^github\.com/nova-social/orphan-cleaner/(cmd|internal)'; then
    echo "gen/ must not import the packages above" >&2
    exit 1
fi
if [ $stale -ne 0 ]; then
    echo "gen/ is not up to date: run \`make generate\` and commit what it writes" >&2
    exit 1
fi
go run ./internal/pgtemp/pgtemprun -migrate -- "$bin/sqlc" vet
