#!/bin/sh
# Measures what each migration costs a messaging-service at work, for
# docs/dba-review.md: how long it takes, the locks that it was seen to hold, how long
# the application's joins and leaves waited meanwhile, and the disk that it takes. On a
# throw-away cluster, durable as in production; prints a table.
# Usage: dba-measure.sh GOOSE [MEMBERS], default 10000000; RATE joins and leaves a second (200).
set -eu
goose=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
members=${2:-10000000}
cd "$(dirname "$0")/../.."
if [ -z "${DBA_MEASURE_INSIDE:-}" ]; then
    exec env DBA_MEASURE_INSIDE=1 go run ./internal/pgtemp/pgtemprun -schema \
        -set fsync=on -set synchronous_commit=on -set full_page_writes=on \
        -set shared_buffers=1GB -set maintenance_work_mem=256MB -set max_wal_size=4GB \
        -- "$0" "$goose" "$members"
fi

rate=${RATE:-200}
# pgtemprun says in DATABASE_URL where the cluster is.
psql="psql -X -q -At -v ON_ERROR_STOP=1 -d $DATABASE_URL"
pgbench=$(command -v pgbench || echo "$($psql -c "SELECT setting FROM pg_config WHERE name = 'BINDIR'")/pgbench")
temp=$(mktemp -d)
writer= watcher=
trap 'for pid in $writer $watcher; do kill "$pid" 2>/dev/null || :; done; rm -rf "$temp"' EXIT

conversations=$((members / 20))
echo "$($psql -c "SELECT 'PostgreSQL ' || current_setting('server_version')"), $(getconf _NPROCESSORS_ONLN) cores," \
    "load $(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo '?'), $members members in $conversations conversations"

began=$(date +%s)
$psql -v members="$members" -v conversations="$conversations" <<'SQL'
SET session_replication_role = replica;
SET synchronous_commit = off;
INSERT INTO conversations (id, name, member_count) SELECT md5('conversation ' || n)::uuid, 'c' || n, 20 FROM generate_series(0, :conversations - 1) AS n;
ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey;
-- Five members a user, in conversations that lie far apart.
INSERT INTO conversation_members (conversation_id, user_id, joined_at, last_read_at)
SELECT md5('conversation ' || (n / 5 + (n % 5) * 10007) % :conversations)::uuid, md5('user ' || n / 5)::uuid,
    now() - make_interval(hours => n % 10000), now()
FROM generate_series(0, :members - 1) AS n;
ALTER TABLE conversation_members ADD CONSTRAINT conversation_members_pkey PRIMARY KEY (conversation_id, user_id);
RESET session_replication_role;
VACUUM (ANALYZE);
CHECKPOINT;
SQL
echo "loaded in $(($(date +%s) - began)) s: conversation_members $($psql -c "SELECT pg_size_pretty(pg_table_size('conversation_members')) || ', its primary key ' || pg_size_pretty(pg_indexes_size('conversation_members'))")"

# The application: joins and leaves, each a transaction, by the clock whatever they
# take; what is late counts.
cat >"$temp/join.sql" <<'SQL'
\set c random(0, :conversations - 1)
INSERT INTO conversation_members (conversation_id, user_id) VALUES (md5('conversation ' || :c)::uuid, gen_random_uuid());
SQL
cat >"$temp/leave.sql" <<'SQL'
\set n random(0, :members - 1)
DELETE FROM conversation_members
WHERE conversation_id = md5('conversation ' || (:n / 5 + (:n % 5) * 10007) % :conversations)::uuid
    AND user_id = md5('user ' || :n / 5)::uuid;
SQL
(cd "$temp" && exec "$pgbench" -n -c 4 -j 1 -R "$rate" -T 36000 -l --log-prefix=writes -D "members=$members" -D "conversations=$conversations" \
    -f join.sql -f leave.sql "$DATABASE_URL" >"$temp/pgbench" 2>&1) &
writer=$!

# waited FROM TO: how many of the application's transactions were under way in these
# seconds, and the median, 99th percentile and maximum of what they took, ms.
waited() {
    cat "$temp"/writes.* | awk -v from="$1" -v to="$2" '
        # latency in microseconds, counted from when it was due; end in seconds and microseconds
        { end = $5 + $6 / 1e6; if (end >= from && end - $3 / 1e6 <= to) print $3 / 1000 }' | sort -n |
        awk '{ ms[NR] = $1 } END { if (NR == 0) { print "0 | | |"; exit }
            p = int(NR * 0.99); if (p < 1) p = 1; m = int((NR + 1) / 2)
            printf "%d | %.1f | %.1f | %.1f\n", NR, ms[m], ms[p], ms[NR] }'
}
now() { date +%s.%N; }

# The locks that any session but the application holds on its tables, and whether the
# application waits for one, a hundred times a second.
cat >"$temp/watch.sql" <<'SQL'
SELECT extract(EPOCH FROM clock_timestamp()) || ' ' || l.relation::regclass || ' ' || l.mode
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation'
    AND l.granted
    AND a.backend_type = 'client backend'
    AND a.application_name NOT IN ('pgbench', 'watcher')
    AND l.relation IN ('conversations'::regclass, 'conversation_members'::regclass, 'users'::regclass)
UNION ALL
-- The application, waiting for a lock on a table: not for a row, the disk or the processor.
SELECT extract(EPOCH FROM clock_timestamp()) || ' application waits'
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation'
    AND NOT l.granted
    AND a.application_name = 'pgbench'
\watch 0.01
SQL
PGAPPNAME=watcher $psql -f "$temp/watch.sql" >"$temp/locks" 2>/dev/null &
watcher=$!

from=$(now)
sleep 15 # as good as nothing happens: what the application waits for by itself
echo
echo "| migration | time | strongest locks seen on messaging-service's tables | seen waiting for a lock | writes meanwhile | median ms | 99 % ms | longest ms |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
echo "| none, 15 s | | | no | $(waited "$from" "$(now)") |"
before=$($psql -c "SELECT pg_database_size(current_database())")
size=$($psql -c "SELECT pg_total_relation_size('conversation_members')")
pending=$(ls migrations/*.sql | wc -l)
while [ "$pending" -gt 0 ]; do
    from=$(now)
    # .env names the table, the driver and the folder.
    GOOSE_DBSTRING=$DATABASE_URL "$goose" up-by-one >"$temp/goose" 2>&1 || { cat "$temp/goose" >&2; exit 1; }
    to=$(now)
    pending=$((pending - 1))
    # goose: 2026/01/31 10:00:00 OK   00001_create_runs.sql (12.34ms)
    file=$(sed -n 's/.*OK *\([0-9a-z_]*\)\.sql.*/\1/p' "$temp/goose")
    took=$(sed -n 's/.*OK .*(\(.*\))$/\1/p' "$temp/goose")
    sleep 1 # for the writes under way at its end to be logged
    waits=$(awk -v from="$from" -v to="$to" '$1 >= from && $1 <= to && $2 == "application" { n++ } END { print (n ? "yes" : "no") }' "$temp/locks")
    locks=$(awk -v from="$from" -v to="$to" '$1 >= from && $1 <= to && $2 != "application" && !seen[$2 $3]++ { print $2 " " $3 }' "$temp/locks" |
        awk 'BEGIN { split("AccessShareLock RowShareLock RowExclusiveLock ShareUpdateExclusiveLock ShareLock ShareRowExclusiveLock ExclusiveLock AccessExclusiveLock", name, " ")
                for (i in name) rank[name[i]] = i + 0 }
            rank[$2] > strongest[$1] { strongest[$1] = rank[$2] }
            END { for (table in strongest) { printf "%s%s %s", separator, table, name[strongest[table]]; separator = ", " } }')
    echo "| $file | $took | $locks | $waits | $(waited "$from" "$to") |"
done
after=$($psql -c "SELECT pg_database_size(current_database())")
echo
echo "index conversation_members_user_id: $($psql -c "SELECT pg_size_pretty(pg_relation_size('conversation_members_user_id'))")," \
    "everything of ours besides: $($psql -c "SELECT pg_size_pretty($after - $before - (pg_total_relation_size('conversation_members') - $size))")"
kill "$writer"
wait "$writer" 2>/dev/null || :
grep -E "failed|skipped|aborted" "$temp/pgbench" || echo "pgbench: no transaction failed"
echo "members audited as they left: $($psql -c 'SELECT count(*) FROM conversation_members_audit')"
