#!/bin/sh
# Writes sql/runbook/explain_queries.sql from queries/*.sql: each query as sqlc
# prepares it, and its plan, once for the values at hand and once for any. The
# values are psql variables that explain.sql sets, SQL literals each, named like
# the parameters.
# Usage: explain.sh > sql/runbook/explain_queries.sql
set -eu
cd "$(dirname "$0")/../.."

cat <<'SQL'
-- Written by tools/scripts/explain.sh from queries/, for explain.sql. Do not edit: `make generate`.
SQL
for file in queries/*.sql; do
    awk '
    # parameter(NAME): its number, in the order in which the names first appear.
    function parameter(name) {
        if (!(name in number)) {
            number[name] = ++parameters
            values = values (parameters > 1 ? ", " : "") ":" name
        }
        return "$" number[name]
    }
    function finish() {
        call = "EXPLAIN (:options) EXECUTE \"" query "\"" (parameters ? " (" values ")" : "") ";"
        printf "PREPARE \"%s\" AS\n%s\n", query, body
        printf "SET LOCAL plan_cache_mode = force_custom_plan;\n\\echo == %s, these values\n%s\n", query, call
        printf "SET LOCAL plan_cache_mode = force_generic_plan;\n\\echo == %s, any values\n%s\n", query, call
        query = ""
    }
    /^-- name: / {
        query = $3
        parameters = 0
        values = body = ""
        split("", number)
        print ""
        next
    }
    query == "" { next }
    # The header of the DBA.
    /^--/ { print; next }
    /^ *--/ { body = body (body == "" ? "" : "\n") $0; next }
    {
        line = ""
        rest = $0
        while (match(rest, /@[a-z_]+|sqlc\.narg\(.[a-z_]+.\)/)) {
            name = substr(rest, RSTART, RLENGTH)
            line = line substr(rest, 1, RSTART - 1)
            rest = substr(rest, RSTART + RLENGTH)
            gsub(/^@|^sqlc\.narg\(.|.\)$/, "", name)
            line = line parameter(name)
        }
        line = line rest
        body = body (body == "" ? "" : "\n") line
        if (line ~ /;$/) finish()
    }' "$file"
done
