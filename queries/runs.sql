-- name: RunBegin :one
-- Opens a run, and gives up one whose lease ended. Fails with OC003 while another is open and with OC002 while runs are
-- paused; with an interval (every) there is no row unless a run is due.
-- Locks: SHARE ROW EXCLUSIVE on runs, 3 s at most. Index: runs_one_open. Rows: one or two.
SELECT
    r.run_id::bigint AS run_id,
    r.started_at::timestamptz AS started_at,
    r.settings::jsonb AS settings,
    coalesce(r.approved_run, 0)::bigint AS approved_run
FROM orphan_cleaner.run_begin(
    @token::uuid, @kind::text, @phase::text, @settings::jsonb, @lease::interval, @host::text, @version::text,
    sqlc.narg('every')::interval, @is_revert::boolean
) AS r;

-- name: RunHeartbeat :one
-- Keeps a run open; returns whether runs are paused. Fails with OC001 when it is no longer open.
-- Locks: the run's row. Index: runs_one_open or runs_pkey. Rows: one.
SELECT orphan_cleaner.run_heartbeat(@run_id::bigint, @token::uuid, @kind::text, @phase::text)::boolean AS paused;

-- name: RunStage :one
-- Stages users as missing, with what they mean for the run, and as unknown; returns the rows due among them.
-- Locks: ACCESS SHARE on the targets, ROW EXCLUSIVE on sightings.
-- Index: conversation_members_user_id, candidates_pkey. Rows: the users given and their rows.
SELECT orphan_cleaner.run_stage(@run_id::bigint, @token::uuid, @missing::uuid [], @unknown::uuid [])::bigint AS rows_due;

-- name: RunJudge :one
-- Judges the run: names the breaker that refuses it, or writes the ledger.
-- Locks: ROW EXCLUSIVE on the ledger; ACCESS SHARE on conversation_members. Index: none: staging and the ledger are read whole.
-- Rows: all missing users; all members, counted, where they are few or many are due.
SELECT
    coalesce(j.breaker, '')::text AS breaker,
    coalesce(j.message, '')::text AS message
FROM orphan_cleaner.run_judge(@run_id::bigint, @token::uuid, @report::jsonb) AS j;

-- name: RunBreakers :many
-- What the breakers say of these settings and facts: the judgement of a dry run, of a fleet by the sums of its history, and
-- the figures for a page.
-- Locks: ACCESS SHARE on hours, runs and conversation_members. Index: runs_heartbeat_at; hours is read whole.
-- Rows: an hour each of the audit's window; all members, counted, where they are few or many are due.
SELECT
    b.breaker::text AS breaker,
    coalesce(b.figure, 0)::float8 AS figure,
    coalesce(b.limit_value, 0)::float8 AS limit_value,
    b.is_tripped::boolean AS is_tripped,
    b.message::text AS message
FROM orphan_cleaner.breakers(@settings::jsonb, @facts::jsonb, sqlc.narg('history')::jsonb) AS b;

-- name: RunAssess :one
-- What these missing users mean for a run, summed up; changes nothing: the staging of a dry run. Pinned limits are
-- applied, as run_begin applies them.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id, candidates_pkey. Rows: the users given and their members.
WITH assessed AS MATERIALIZED (
    SELECT a.user_id, a.is_new, a.is_approved, a.is_restarted, a.is_active, a.is_due, a.rows_due, a.rows_young, a.rows_held
    FROM orphan_cleaner.assess(
        @user_ids::uuid [],
        greatest(@retention::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'retention')),
        least(@max_gap::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'max-gap')),
        sqlc.narg('approved_run')::bigint
    ) AS a (user_id, clock_start, evidence, is_new, is_approved, is_restarted, is_active, is_due, rows_due, rows_young, rows_held)
)
SELECT
    count(*) FILTER (WHERE a.is_new)::bigint AS users_new,
    -- As run_judge counts them.
    count(*) FILTER (WHERE a.is_new AND NOT a.is_approved AND NOT EXISTS (
        SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = a.user_id AND h.run_id IS NOT NULL
    ))::bigint AS users_new_judged,
    count(*) FILTER (WHERE NOT a.is_approved)::bigint AS candidates_judged,
    count(*) FILTER (WHERE a.is_restarted)::bigint AS users_restarted,
    count(*) FILTER (WHERE a.is_active)::bigint AS users_active,
    count(*) FILTER (WHERE a.is_due)::bigint AS users_due,
    -- By target, in order.
    ARRAY(
        SELECT coalesce((SELECT sum(b.rows_due[t.n]) FROM assessed AS b), 0)::bigint FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n
    )::bigint [] AS rows_due,
    ARRAY(
        SELECT coalesce((SELECT sum(b.rows_due[t.n]) FROM assessed AS b WHERE NOT b.is_approved), 0)::bigint
        FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n
    )::bigint [] AS rows_due_judged,
    ARRAY(
        SELECT coalesce((SELECT sum(b.rows_young[t.n]) FROM assessed AS b), 0)::bigint FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n
    )::bigint [] AS rows_young,
    ARRAY(
        SELECT coalesce((SELECT sum(b.rows_held[t.n]) FROM assessed AS b), 0)::bigint FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n
    )::bigint [] AS rows_held,
    -- Conversations that lose their last owner, that keep it by choice, and that lose their last member.
    orphan_cleaner.members_at_stake(
        coalesce(array_agg(a.user_id) FILTER (WHERE a.is_due), '{}'),
        now() - greatest(@retention::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'retention'))
    )::bigint [] AS at_stake
FROM assessed AS a;

-- name: RunDuePage :many
-- The next due users of the run behind one, as staged, with the rows that the sweep may delete, by target: those who are blocked, or
-- the others.
-- Locks: ACCESS SHARE on sightings and candidates. Index: candidates_blocked; none else is needed: staging is read in order,
-- or whole. Rows: as asked, and all who are blocked.
SELECT s.user_id, coalesce(s.rows_due, '{}')::bigint [] AS rows_due, @is_blocked::boolean AS is_blocked
FROM orphan_cleaner.sightings AS s
WHERE s.run_id = @run_id
    AND s.user_id > @after
    AND s.is_due
    AND (s.user_id IN (SELECT c.user_id FROM orphan_cleaner.candidates AS c WHERE c.blocked_since IS NOT NULL)) = @is_blocked::boolean
ORDER BY s.user_id
LIMIT @max_users;

-- name: RunSweepChunk :one
-- Deletes one chunk: rows of due users who were just again missing, unchanged since checked_from.
-- Locks: ROW EXCLUSIVE on the targets; SHARE on holds and pauses; 2 s at most for each, half a second for a row. Last, where there
-- are counts, SHARE UPDATE EXCLUSIVE on effects and the rows that count; 200 ms at most for each.
-- Index: conversation_members_user_id, candidates_pkey. Rows: max_rows.
SELECT c.rows_deleted::bigint [] AS rows_deleted, c.is_whole::boolean AS is_whole
FROM orphan_cleaner.sweep_chunk(
    @run_id::bigint, @token::uuid, @user_ids::uuid [], (@checked_from::text)::xid8, @max_rows::bigint
) AS c;

-- name: RunSweepReturned :exec
-- Takes users out of the ledger who are alive after all.
-- Locks: ROW EXCLUSIVE on the ledger. Index: candidates_pkey. Rows: the users given.
SELECT orphan_cleaner.sweep_returned(@run_id::bigint, @token::uuid, @user_ids::uuid []);

-- name: RunFinish :one
-- Ends a run and proves it; the state is failed where the proof says so.
-- Locks: the run's row; ACCESS SHARE on audit and backup.
-- Index: conversation_members_audit_deleted_at (BRIN). Rows: what was deleted since the run began.
SELECT
    r.state::text AS state,
    coalesce(r.error, '')::text AS error,
    r.users_new::bigint AS users_new,
    r.users_returned::bigint AS users_returned,
    r.users_restarted::bigint AS users_restarted,
    r.users_due::bigint AS users_due,
    r.candidates::bigint AS candidates,
    r.members_due::bigint AS members_due,
    r.members_deleted::bigint AS members_deleted,
    r.members_restored::bigint AS members_restored,
    r.members_kept_young::bigint AS members_kept_young,
    r.members_held::bigint AS members_held,
    r.members_changed::bigint AS members_changed,
    r.conversations::bigint AS conversations,
    r.owners_lost::bigint AS owners_lost,
    r.owners_kept::bigint AS owners_kept,
    r.conversations_emptied::bigint AS conversations_emptied
FROM orphan_cleaner.run_finish(
    @run_id::bigint, @token::uuid, @state::text, sqlc.narg('breaker')::text, sqlc.narg('error')::text, @counts::jsonb
) AS r;

-- name: RunTargets :many
-- What a run did with each target, in the order of the sweep; no row for a run that was not judged.
-- Locks: ACCESS SHARE on run_targets and targets. Index: run_targets_pkey. Rows: the targets.
SELECT r.target, r.rows_due, r.rows_deleted, r.rows_kept_young, r.rows_held, r.rows_changed, r.rows_blocked
FROM orphan_cleaner.run_targets AS r
JOIN orphan_cleaner.targets_in_order AS t ON t.name = r.target
WHERE r.run_id = @run_id
ORDER BY t.n;

-- name: RunSchedule :one
-- When the next run is due, as run_begin decides it: an interval after the last attempt was, of whichever runner,
-- unless that attempt was given up. Seconds; 0 or less: now.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards; runs_one_open. Rows: a few.
SELECT
    coalesce(
        CASE
            WHEN l.started_at > now() THEN 0
            ELSE extract(EPOCH FROM l.next_at - now())
        END, 0
    )::float8 AS due_in,
    (o.run_id IS NOT NULL)::boolean AS run_open,
    -- When the open run may be given up, unless it shows a sign of life.
    coalesce(extract(EPOCH FROM o.heartbeat_at + o.lease - now()), 0)::float8 AS lapses_in,
    EXISTS (SELECT FROM orphan_cleaner.pauses AS p WHERE p.resumed_at IS NULL)::boolean AS paused
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + @every::interval AS next_at
    FROM orphan_cleaner.runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND NOT (a.state = 'running' AND a.heartbeat_at + a.lease < now())
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
LEFT JOIN orphan_cleaner.runs AS o ON o.state = 'running';

-- name: RunRecent :many
-- The last runs, newest first.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards. Rows: as asked.
SELECT r.run_id, r.kind, r.state, r.phase, r.started_at, r.finished_at, r.host, r.users_checked, r.users_missing,
    r.users_unknown, r.users_due, r.users_blocked, r.members_due, r.members_deleted, r.members_restored, r.members_kept_young, r.members_held,
    r.conversations, r.owners_lost, r.owners_kept, r.conversations_emptied, r.batch_calls, r.breaker, r.error,
    extract(EPOCH FROM coalesce(r.finished_at, now()) - r.started_at)::float8 AS seconds,
    -- Of a restore: it deleted again what another one restored.
    (r.kind = 'restore' AND coalesce(r.settings #>> '{flags,revert}', '0') <> '0')::boolean AS is_revert
FROM orphan_cleaner.runs AS r
ORDER BY r.run_id DESC
LIMIT @max_rows;

-- name: RunSpans :many
-- What runs did in each of so many spans of one length, UTC, of which the last is under way: users as the last run that
-- began in it found them, and by the sums that every finished run has on it what all of them did.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at, backwards. Rows: a few for each span, however many runs there were.
WITH asked AS (
    SELECT @span::interval AS span, @spans::integer AS spans
),
sums AS (
    SELECT
        n.ordinal,
        b.since,
        coalesce(r.started_at >= b.since, false) AS is_run,
        r.users_checked,
        r.users_missing,
        -- A run that was given up has no sums: those of the one before it hold.
        coalesce(r.totals, e.totals, '{}') AS totals
    FROM asked AS a
        -- The first is the one before, which has what to subtract.
    CROSS JOIN LATERAL generate_series(0, a.spans) AS n (ordinal)
        -- A Monday, so that weeks begin on one.
    CROSS JOIN LATERAL (
        SELECT date_bin(a.span, now(), timestamptz '2001-01-01 00:00:00+00') - (a.spans - n.ordinal) * a.span AS since
    ) AS b
    LEFT JOIN LATERAL (
        SELECT l.started_at, l.users_checked, l.users_missing, l.totals
        FROM orphan_cleaner.runs AS l
        WHERE l.started_at < b.since + a.span
            AND l.kind = 'clean'
            AND l.state <> 'running'
        ORDER BY l.started_at DESC
        LIMIT 1
    ) AS r ON true
    LEFT JOIN LATERAL (
        SELECT l.totals
        FROM orphan_cleaner.runs AS l
        WHERE r.totals IS NULL
            AND l.totals IS NOT NULL
            AND l.started_at < r.started_at
        ORDER BY l.started_at DESC
        LIMIT 1
    ) AS e ON true
),
figures AS (
    SELECT
        s.ordinal, s.since, s.is_run, s.users_checked, s.users_missing,
        (SELECT coalesce(sum(t.value::bigint), 0) FROM jsonb_each_text(s.totals) AS t (name, value) WHERE t.name LIKE 'clean %') AS runs,
        coalesce((s.totals ->> 'clean refused')::bigint, 0) AS refused,
        coalesce((s.totals ->> 'members_deleted')::bigint, 0) AS deleted,
        coalesce((s.totals ->> 'members_restored')::bigint, 0) AS restored
    FROM sums AS s
),
differences AS (
    SELECT
        s.ordinal, s.since, s.is_run, s.users_checked, s.users_missing,
        s.runs - lag(s.runs) OVER spans AS runs,
        s.refused - lag(s.refused) OVER spans AS refused,
        s.deleted - lag(s.deleted) OVER spans AS deleted,
        s.restored - lag(s.restored) OVER spans AS restored
    FROM figures AS s
    WINDOW spans AS (ORDER BY s.ordinal)
)
SELECT
    d.since::timestamptz AS since,
    d.is_run::boolean AS is_run,
    coalesce(CASE WHEN d.is_run THEN d.users_checked END, 0)::bigint AS users_checked,
    coalesce(CASE WHEN d.is_run THEN d.users_missing END, 0)::bigint AS users_missing,
    coalesce(d.runs, 0)::bigint AS runs,
    coalesce(d.refused, 0)::bigint AS refused,
    coalesce(d.deleted, 0)::bigint AS members_deleted,
    coalesce(d.restored, 0)::bigint AS members_restored
FROM differences AS d
WHERE d.ordinal > 0
ORDER BY d.ordinal;

-- name: RunOne :one
-- All that is known of one run, but its token.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey. Rows: one.
SELECT r.run_id, r.kind, r.state, r.phase, r.started_at, r.heartbeat_at, r.finished_at, r.scheduled_for, r.judged_at, r.host, r.version,
    r.settings, r.approved_run, r.users_checked, r.users_missing, r.users_unknown, r.users_new, r.users_returned, r.users_restarted,
    r.users_due, r.users_blocked, r.candidates, r.members_total, r.members_due, r.members_deleted, r.members_restored, r.members_kept_young,
    r.members_held, r.members_changed, r.members_blocked, r.conversations, r.batch_calls, r.call_ms_max, r.breaker, r.error,
    now()::timestamptz AS database_time
FROM orphan_cleaner.runs AS r
WHERE r.run_id = @run_id;

-- name: RunConversations :many
-- The conversations that lost the most members to a run, by the audit of the time in which it was open.
-- Locks: ACCESS SHARE on the audit. Index: conversation_members_audit_deleted_at (BRIN). Rows: what was deleted in that time.
SELECT a.conversation_id, count(*) AS members
FROM public.conversation_members_audit AS a
WHERE a.deleted_at >= @since::timestamptz
    AND a.deleted_at <= @until::timestamptz
    AND a.run_id = @run_id::bigint
GROUP BY a.conversation_id
ORDER BY count(*) DESC, a.conversation_id
LIMIT @max_rows;

-- name: RunRestores :many
-- The restores that brought back rows which a run deleted, newest first.
-- Locks: ACCESS SHARE on restores. Index: restores_pkey. Rows: the rows of all restores since.
SELECT
    g.run_id,
    count(*) FILTER (WHERE g.state = 'restored') AS restored,
    count(*) FILTER (WHERE g.state = 'reverted') AS reverted
FROM orphan_cleaner.restores AS g
WHERE g.run_id > @run_id::bigint
    AND g.deleted_run = @run_id::bigint
    AND g.state <> 'planned'
GROUP BY g.run_id
ORDER BY g.run_id DESC
LIMIT @max_rows;
