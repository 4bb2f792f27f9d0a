-- Written by tools/scripts/explain.sh from queries/, for explain.sql. Do not edit: `make generate`.

-- Approves what a refused run found. Fails on approvals_one_open while the run has an approval that is open, and with
-- OC011 where nothing can be approved.
-- Locks: ROW EXCLUSIVE on approvals. Index: runs_pkey. Rows: one.
PREPARE "ApprovalGive" AS
SELECT a.approval_id::bigint AS approval_id, a.expires_at::timestamptz AS expires_at
FROM orphan_cleaner.approve($1::bigint, $2::text, $3::interval) AS a;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalGive, these values
EXPLAIN (:options) EXECUTE "ApprovalGive" (:run_id, :approved_by, :lasting);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalGive, any values
EXPLAIN (:options) EXECUTE "ApprovalGive" (:run_id, :approved_by, :lasting);

-- Revokes the open approval of a run, expired or not; 0: there is none.
-- Locks: ROW EXCLUSIVE on approvals. Index: approvals_one_open. Rows: one.
PREPARE "ApprovalRevoke" AS
SELECT coalesce(orphan_cleaner.revoke_approval($1::bigint, $2::text), 0)::bigint AS approval_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalRevoke, these values
EXPLAIN (:options) EXECUTE "ApprovalRevoke" (:run_id, :revoked_by);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalRevoke, any values
EXPLAIN (:options) EXECUTE "ApprovalRevoke" (:run_id, :revoked_by);

-- The approvals that a run may use, oldest first.
-- Locks: ACCESS SHARE on approvals. Index: approvals_one_open. Rows: a few.
PREPARE "ApprovalOpen" AS
SELECT a.approval_id, a.run_id, a.approved_by, a.approved_at, a.expires_at
FROM orphan_cleaner.approvals AS a
WHERE a.used_at IS NULL
    AND a.revoked_at IS NULL
    AND a.expires_at > now()
ORDER BY a.approval_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalOpen, these values
EXPLAIN (:options) EXECUTE "ApprovalOpen";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalOpen, any values
EXPLAIN (:options) EXECUTE "ApprovalOpen";

-- The members of candidates by the day on which a run may delete them: when the retention of both, user and member, has
-- ended. The first row is what MetricsDue counts, due already. Who is on hold is in no row, nor is a member without joined_at.
-- Locks: ACCESS SHARE on candidates, holds and conversation_members.
-- Index: conversation_members_user_id. Rows: the whole ledger and its members.
PREPARE "CandidateBacklog" AS
SELECT
    greatest(m.due_at AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')::date::text AS due_on,
    (m.due_at <= now())::boolean AS is_due,
    count(DISTINCT c.user_id) AS users,
    sum(m.members)::bigint AS members
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT greatest(c.first_missing_at, m.joined_at) + $1::interval AS due_at, count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
        AND m.joined_at IS NOT NULL
        -- NOT IN is hashed once, NOT EXISTS would be looked up for each row. It is never null here.
        AND m.conversation_id NOT IN (
            SELECT h.conversation_id
            FROM orphan_cleaner.holds_in_force AS h
            WHERE h.conversation_id IS NOT NULL
        )
    GROUP BY 1
) AS m
WHERE c.user_id NOT IN (
    SELECT h.user_id
    FROM orphan_cleaner.holds_in_force AS h
    WHERE h.user_id IS NOT NULL
)
GROUP BY 1, 2
ORDER BY 1, 2 DESC
LIMIT $2;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateBacklog, these values
EXPLAIN (:options) EXECUTE "CandidateBacklog" (:retention, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateBacklog, any values
EXPLAIN (:options) EXECUTE "CandidateBacklog" (:retention, :max_rows);

-- Users whose rows something in the database refuses to delete, longest first: since when, and what the server says.
-- Locks: ACCESS SHARE on candidates. Index: candidates_blocked. Rows: all who are blocked.
PREPARE "CandidateBlocked" AS
SELECT
    c.user_id,
    c.blocked_since::timestamptz AS blocked_since,
    c.blocked_by::jsonb AS blocked_by
FROM orphan_cleaner.candidates AS c
WHERE c.blocked_since IS NOT NULL
ORDER BY c.blocked_since, c.user_id
LIMIT $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateBlocked, these values
EXPLAIN (:options) EXECUTE "CandidateBlocked" (:max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateBlocked, any values
EXPLAIN (:options) EXECUTE "CandidateBlocked" (:max_rows);

-- The rows of candidates in each target, due or not, in the order of the sweep.
-- Locks: ACCESS SHARE on candidates and the targets. Index: none here; inside, those of the targets on the user. Rows: the ledger and its rows.
PREPARE "CandidateTargets" AS
SELECT r.target::text AS target, r.row_count::bigint AS row_count
FROM orphan_cleaner.target_rows(ARRAY(SELECT c.user_id FROM orphan_cleaner.candidates AS c)) AS r;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateTargets, these values
EXPLAIN (:options) EXECUTE "CandidateTargets";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateTargets, any values
EXPLAIN (:options) EXECUTE "CandidateTargets";

-- How far checking has come; no row before the first judged run. checked_since: when the run began since which every
-- user has been checked, where is_whole.
-- Locks: ACCESS SHARE on coverage, unknowns and runs. Index: runs_pkey. Rows: one; the runs of one cycle.
PREPARE "CoverageState" AS
SELECT
    v.cursor_id,
    v.users,
    v.users_so_far,
    v.checked_at,
    (v.previous_run_id IS NOT NULL)::boolean AS is_whole,
    extract(EPOCH FROM now() - v.checked_at)::float8 AS seconds_since,
    coalesce(least(
        (
            SELECT r.started_at
            FROM orphan_cleaner.runs AS r
            WHERE r.run_id >= v.previous_run_id
                AND r.judged_at IS NOT NULL
                -- The users behind the cursor were last checked in the cycle before.
                AND (v.cursor_id IS NULL OR r.checked_through IS NULL OR r.checked_through > v.cursor_id)
            ORDER BY r.run_id
            LIMIT 1
        ),
        (SELECT min(u.unknown_since) FROM orphan_cleaner.unknowns AS u)
    ), now())::timestamptz AS checked_since,
    (SELECT count(*) FROM orphan_cleaner.unknowns)::bigint AS users_unknown
FROM orphan_cleaner.coverage AS v;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageState, these values
EXPLAIN (:options) EXECUTE "CoverageState";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageState, any values
EXPLAIN (:options) EXECUTE "CoverageState";

-- The next users outside of a range who are checked in every run: candidates, and those without a valid response.
-- Locks: ACCESS SHARE on candidates and unknowns. Index: candidates_pkey, unknowns_pkey, in order. Rows: max_users.
PREPARE "CoverageOthers" AS
SELECT o.user_id
FROM (
    (
        SELECT c.user_id
        FROM orphan_cleaner.candidates AS c
        WHERE c.user_id >= $1
        ORDER BY c.user_id
        LIMIT $2::bigint
    )
    UNION
    (
        SELECT u.user_id
        FROM orphan_cleaner.unknowns AS u
        WHERE u.user_id >= $1
        ORDER BY u.user_id
        LIMIT $2::bigint
    )
) AS o
ORDER BY o.user_id
LIMIT $2::bigint;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageOthers, these values
EXPLAIN (:options) EXECUTE "CoverageOthers" (:from_user, :max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageOthers, any values
EXPLAIN (:options) EXECUTE "CoverageOthers" (:from_user, :max_users);

-- Those of the users who have a row, in order.
-- Locks: ACCESS SHARE on the targets. Index: conversation_members_user_id. Rows: the users given.
PREPARE "CoverageHolders" AS
SELECT h.user_id::uuid AS user_id
FROM orphan_cleaner.target_holders($1::uuid []) AS h (user_id)
ORDER BY 1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageHolders, these values
EXPLAIN (:options) EXECUTE "CoverageHolders" (:user_ids);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageHolders, any values
EXPLAIN (:options) EXECUTE "CoverageHolders" (:user_ids);

-- What the migrator has chosen for counts and owners; no row: nobody has.
-- Locks: ACCESS SHARE on effects. Index: none. Rows: two at most.
PREPARE "EffectList" AS
SELECT e.name, e.choice, e.set_at, e.set_by
FROM orphan_cleaner.effects AS e
ORDER BY e.name;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EffectList, these values
EXPLAIN (:options) EXECUTE "EffectList";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EffectList, any values
EXPLAIN (:options) EXECUTE "EffectList";

-- Chooses. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on effects. Index: effects_pkey. Rows: one.
PREPARE "EffectSet" AS
INSERT INTO orphan_cleaner.effects AS e (name, choice)
VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE
SET choice = excluded.choice,
    set_at = now(),
    set_by = session_user;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EffectSet, these values
EXPLAIN (:options) EXECUTE "EffectSet" (:name, :choice);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EffectSet, any values
EXPLAIN (:options) EXECUTE "EffectSet" (:name, :choice);

-- Of a sample of conversations: how many have a member_count that is not the number of their members, and by how many;
-- and whether there is such a column.
-- Locks: ACCESS SHARE on conversations and conversation_members. Index: conversations_pkey, conversation_members_pkey. Rows: the conversations given, and at
-- most 10,001 members of each.
PREPARE "EffectCounterSample" AS
SELECT s.conversations::bigint AS conversations, s.wrong::bigint AS wrong, s.too_high::bigint AS too_high, s.too_low::bigint AS too_low,
    s.largest::bigint AS largest,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.conversations') AND a.attname = 'member_count' AND NOT a.attisdropped
    )::boolean AS is_there
FROM orphan_cleaner.counter_sample($1::integer) AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EffectCounterSample, these values
EXPLAIN (:options) EXECUTE "EffectCounterSample" (:most);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EffectCounterSample, any values
EXPLAIN (:options) EXECUTE "EffectCounterSample" (:most);

-- Which foreign keys onto the shadow table users delete rows with it, other than members.
-- Locks: none beyond the catalog.
PREPARE "EffectShadowKeys" AS
SELECT coalesce(string_agg(k.conrelid::regclass || ' by ' || k.conname, ', ' ORDER BY k.conrelid::regclass::text, k.conname), '')::text AS cascades
FROM pg_catalog.pg_constraint AS k
WHERE k.confrelid = to_regclass('public.users')
    AND k.contype = 'f'
    AND k.conparentid = 0
    AND k.confdeltype = 'c';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EffectShadowKeys, these values
EXPLAIN (:options) EXECUTE "EffectShadowKeys";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EffectShadowKeys, any values
EXPLAIN (:options) EXECUTE "EffectShadowKeys";

-- Begins a cursor for a sink that has none: at a run, or behind the newest finished one.
-- Locks: ROW EXCLUSIVE on event_cursors. Index: event_cursors_pkey, runs_pkey, backwards. Rows: one.
PREPARE "EventSink" AS
SELECT orphan_cleaner.event_sink($1::text, $2::bigint);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EventSink, these values
EXPLAIN (:options) EXECUTE "EventSink" (:sink, :from_run);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EventSink, any values
EXPLAIN (:options) EXECUTE "EventSink" (:sink, :from_run);

-- The next events behind a sink's cursor, of one finished run, in the order of kind, conversation and user; none while
-- another relay has a page.
-- Locks: the sink's row of event_cursors; ACCESS SHARE on the audit, restores and promotions.
-- Index: runs_with_events, conversation_members_audit_deleted_at (BRIN), restores_pkey, promotions_pkey, promotions_undone_by_run.
-- Rows: what was deleted, by whomever, in the span of that run, read twice.
PREPARE "EventPage" AS
SELECT
    p.run_id::bigint AS run_id,
    p.kind::text AS kind,
    p.conversation_id::uuid AS conversation_id,
    p.user_id::uuid AS user_id,
    p.happened_at::timestamptz AS happened_at,
    coalesce(p.role, '')::text AS role
FROM orphan_cleaner.event_page($1::text, $2::uuid, $3::integer, $4::interval) AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EventPage, these values
EXPLAIN (:options) EXECUTE "EventPage" (:sink, :ticket, :max_rows, :lease);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EventPage, any values
EXPLAIN (:options) EXECUTE "EventPage" (:sink, :ticket, :max_rows, :lease);

-- Moves a sink's cursor to the last event that was delivered, or records the error; false: another relay has the page.
-- Locks: the sink's row of event_cursors. Index: none is needed: it has a row for each sink. Rows: one.
PREPARE "EventAdvance" AS
SELECT coalesce(orphan_cleaner.event_advance(
    $1::text, $2::uuid, $3::text, $4::uuid, $5::uuid,
    $6::bigint, $7::text
), false)::boolean AS moved;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EventAdvance, these values
EXPLAIN (:options) EXECUTE "EventAdvance" (:sink, :ticket, :last_kind, :last_conversation, :last_user, :delivered, :error);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EventAdvance, any values
EXPLAIN (:options) EXECUTE "EventAdvance" (:sink, :ticket, :last_kind, :last_conversation, :last_user, :delivered, :error);

-- How many events of finished runs each sink lacks, since when, and why.
-- Locks: ACCESS SHARE on event_cursors, runs and promotions. Index: runs_with_events, promotions_pkey. Rows: the runs behind each cursor.
PREPARE "EventBacklog" AS
SELECT
    c.sink,
    coalesce(c.error, '')::text AS error,
    coalesce(b.events, 0)::bigint AS events,
    coalesce(extract(EPOCH FROM now() - b.oldest), 0)::float8 AS oldest_age
FROM orphan_cleaner.event_cursors AS c
CROSS JOIN LATERAL (
    SELECT sum(l.events) AS events, min(r.finished_at) AS oldest
    FROM orphan_cleaner.runs AS r
    CROSS JOIN LATERAL (
        SELECT r.members_deleted + r.members_restored - CASE r.run_id WHEN c.run_id THEN c.events ELSE 0 END
            + (SELECT count(*) FROM orphan_cleaner.promotions AS p WHERE p.run_id = r.run_id)
            + (SELECT count(*) FROM orphan_cleaner.promotions AS p WHERE p.undone_by_run = r.run_id AND p.undone_at IS NOT NULL) AS events
    ) AS l
    WHERE r.run_id >= c.run_id
        AND r.state <> 'running'
        AND r.members_deleted + r.members_restored > 0
        AND l.events > 0
) AS b
ORDER BY c.sink;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == EventBacklog, these values
EXPLAIN (:options) EXECUTE "EventBacklog";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == EventBacklog, any values
EXPLAIN (:options) EXECUTE "EventBacklog";

-- The sums of each day, counted in 24 hours back from now, by target, '' for users. A fleet adds them up: 60 days, further back than a breaker looks.
-- Locks: ACCESS SHARE on hours. Index: none; hours is read whole. Rows: an hour each of the audit's window.
PREPARE "HourDays" AS
SELECT
    h.target,
    floor(extract(EPOCH FROM now() - h.hour) / 86400)::integer AS days_ago,
    sum(h.users_new)::bigint AS users_new,
    coalesce((array_agg(h.rows_total ORDER BY h.hour) FILTER (WHERE h.rows_total > 0))[1], 0)::bigint AS rows_total,
    sum(h.rows_deleted)::bigint AS rows_deleted
FROM orphan_cleaner.hours AS h
WHERE h.hour > now() - interval '60 days'
GROUP BY 1, 2
ORDER BY 1, 2;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HourDays, these values
EXPLAIN (:options) EXECUTE "HourDays";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HourDays, any values
EXPLAIN (:options) EXECUTE "HourDays";

-- Which database this is (the same on its standbys and on copies of its server), and since when its server has run: together
-- they show whether two names are one database. By its oid: a name may be another database's by now.
-- Locks: none.
PREPARE "ShardIdentity" AS
SELECT
    (s.system_identifier::text || '/' || (SELECT d.oid::text FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()))::text AS database,
    pg_postmaster_start_time()::timestamptz AS server_since
FROM pg_catalog.pg_control_system() AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ShardIdentity, these values
EXPLAIN (:options) EXECUTE "ShardIdentity";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ShardIdentity, any values
EXPLAIN (:options) EXECUTE "ShardIdentity";

-- Places a hold on a user or a conversation; 0 when it would be over already.
-- Locks: ROW EXCLUSIVE on holds; waits for the chunks in flight, 5 s at most. Index: none. Rows: one.
PREPARE "HoldAdd" AS
SELECT coalesce(orphan_cleaner.hold_add(
    $1::uuid, $2::uuid, $3::text,
    $4::timestamptz, $5::interval
), 0)::bigint AS hold_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldAdd, these values
EXPLAIN (:options) EXECUTE "HoldAdd" (:user_id, :conversation_id, :reason, :until, :lasting);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldAdd, any values
EXPLAIN (:options) EXECUTE "HoldAdd" (:user_id, :conversation_id, :reason, :until, :lasting);

-- Lifts one hold by its id, or those of a restore: but for users whose rows it restored and that are not reverted,
-- unless restored_too. Returns how many.
-- Locks: ROW EXCLUSIVE on holds. Index: holds_pkey, holds_run_id_user_id, restores_pkey. Rows: the users of the restore.
PREPARE "HoldLift" AS
SELECT orphan_cleaner.hold_lift(
    $1::bigint, $2::bigint, $3::boolean
)::bigint AS lifted;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldLift, these values
EXPLAIN (:options) EXECUTE "HoldLift" (:hold_id, :restore_run, :restored_too);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldLift, any values
EXPLAIN (:options) EXECUTE "HoldLift" (:hold_id, :restore_run, :restored_too);

-- The holds in force, with the members they keep: each that was placed by hand, and those of a restore as one.
-- Locks: ACCESS SHARE. Index: conversation_members_user_id, conversation_members_pkey. Rows: the holds and their members.
PREPARE "HoldList" AS
SELECT
    h.hold_id, h.user_id, h.conversation_id, NULL::bigint AS run_id, h.reason, h.created_at, h.created_by, h.until,
    ((
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.user_id = h.user_id
    ) + (
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.conversation_id = h.conversation_id
    ))::bigint AS members,
    (h.user_id IS NOT NULL)::integer::bigint AS users
FROM orphan_cleaner.holds_in_force AS h
WHERE h.run_id IS NULL
UNION ALL
SELECT
    min(h.hold_id), NULL, NULL, h.run_id, min(h.reason), min(h.created_at), min(h.created_by), max(h.until),
    sum((
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.user_id = h.user_id
    ))::bigint,
    count(*)
FROM orphan_cleaner.holds_in_force AS h
WHERE h.run_id IS NOT NULL
GROUP BY h.run_id
ORDER BY 1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldList, these values
EXPLAIN (:options) EXECUTE "HoldList";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldList, any values
EXPLAIN (:options) EXECUTE "HoldList";

-- The rows that the holds of HoldList keep in each target, for those on users: one on a conversation keeps members only.
-- Locks: ACCESS SHARE on holds and the targets. Index: none here; inside, those of the targets on the user. Rows: the holds and their rows.
PREPARE "HoldTargets" AS
SELECT h.hold_id::bigint AS hold_id, r.target::text AS target, r.row_count::bigint AS row_count
FROM (
    SELECT i.hold_id, ARRAY[i.user_id] AS users
    FROM orphan_cleaner.holds_in_force AS i
    WHERE i.run_id IS NULL AND i.user_id IS NOT NULL
    UNION ALL
    SELECT min(i.hold_id), array_agg(i.user_id)
    FROM orphan_cleaner.holds_in_force AS i
    WHERE i.run_id IS NOT NULL
    GROUP BY i.run_id
) AS h
CROSS JOIN LATERAL orphan_cleaner.target_rows(h.users) AS r
WHERE r.row_count > 0
ORDER BY h.hold_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldTargets, these values
EXPLAIN (:options) EXECUTE "HoldTargets";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldTargets, any values
EXPLAIN (:options) EXECUTE "HoldTargets";

-- The pinned settings: a run's own can only be stricter.
-- Locks: ACCESS SHARE on limits. Index: none. Rows: a dozen at most.
PREPARE "LimitList" AS
SELECT l.name, l.value, l.set_at, l.set_by
FROM orphan_cleaner.limits AS l
ORDER BY l.name;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == LimitList, these values
EXPLAIN (:options) EXECUTE "LimitList";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == LimitList, any values
EXPLAIN (:options) EXECUTE "LimitList";

-- Pins a setting. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on limits. Index: none needed: a dozen rows. Rows: one.
PREPARE "LimitPin" AS
INSERT INTO orphan_cleaner.limits AS l (name, value)
VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE
SET value = excluded.value,
    set_at = now(),
    set_by = session_user;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == LimitPin, these values
EXPLAIN (:options) EXECUTE "LimitPin" (:name, :value);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == LimitPin, any values
EXPLAIN (:options) EXECUTE "LimitPin" (:name, :value);

-- Unpins a setting. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on limits. Index: none needed: a dozen rows. Rows: one.
PREPARE "LimitUnpin" AS
DELETE FROM orphan_cleaner.limits AS l
WHERE l.name = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == LimitUnpin, these values
EXPLAIN (:options) EXECUTE "LimitUnpin" (:name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == LimitUnpin, any values
EXPLAIN (:options) EXECUTE "LimitUnpin" (:name);

-- After the server's clock was ahead: moves what runs recorded in the future to now. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on runs, hours and candidates. Index: runs_heartbeat_at, hours_pkey. Rows: what is in the future.
PREPARE "ClockSettle" AS
SELECT orphan_cleaner.settle_clock()::bigint AS runs;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ClockSettle, these values
EXPLAIN (:options) EXECUTE "ClockSettle";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ClockSettle, any values
EXPLAIN (:options) EXECUTE "ClockSettle";

-- The server's time.
-- Locks: none.
PREPARE "ClockNow" AS
SELECT now()::timestamptz AS database_time;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ClockNow, these values
EXPLAIN (:options) EXECUTE "ClockNow";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ClockNow, any values
EXPLAIN (:options) EXECUTE "ClockNow";

-- What the metrics of every runner say: the runs, the ledger's size, the switches. Counts no member.
-- Locks: ACCESS SHARE on our tables.
-- Index: runs_pkey, runs_succeeded, runs_refused, runs_one_open, rechecks_alive, candidates_blocked, pauses_one_in_force; ledger and coverage are read whole.
-- Rows: a few runs, backwards; the ledger, one row per missing user; a few of the rest.
PREPARE "MetricsState" AS
SELECT
    coalesce((
        SELECT extract(EPOCH FROM r.finished_at)
        FROM orphan_cleaner.runs AS r
        WHERE r.kind = 'clean'
            AND r.state = 'succeeded'
        ORDER BY r.run_id DESC
        LIMIT 1
    ), 0)::float8 AS last_success,
    coalesce((
        SELECT extract(EPOCH FROM r.started_at)
        FROM orphan_cleaner.runs AS r
        WHERE r.kind = 'clean'
        ORDER BY r.run_id DESC
        LIMIT 1
    ), 0)::float8 AS last_attempt,
    (coalesce((a.totals ->> 'members_deleted')::bigint, 0) + coalesce(o.members_deleted, 0))::bigint AS members_deleted,
    (coalesce((a.totals ->> 'members_restored')::bigint, 0) + coalesce(o.members_restored, 0))::bigint AS members_restored,
    (coalesce((a.totals ->> 'batch_calls')::bigint, 0) + coalesce(o.batch_calls, 0))::bigint AS batch_calls,
    (o.run_id IS NOT NULL)::boolean AS run_open,
    coalesce(f.users_checked, 0)::bigint AS users_checked,
    coalesce(f.users_unknown, 0)::bigint AS users_unknown,
    coalesce(f.members_held, 0)::bigint AS members_held,
    coalesce(f.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(t.breaker, '')::text AS tripped,
    coalesce((
        SELECT extract(EPOCH FROM least(
            (
                SELECT c.started_at
                FROM orphan_cleaner.runs AS c
                WHERE c.run_id >= v.previous_run_id
                    AND c.judged_at IS NOT NULL
                    AND (v.cursor_id IS NULL OR c.checked_through IS NULL OR c.checked_through > v.cursor_id)
                ORDER BY c.run_id
                LIMIT 1
            ),
            (SELECT min(u.unknown_since) FROM orphan_cleaner.unknowns AS u)
        ))
        FROM orphan_cleaner.coverage AS v
        -- Otherwise some were never checked.
        WHERE v.previous_run_id IS NOT NULL
    ), 0)::float8 AS everybody_checked,
    (SELECT count(*) FROM orphan_cleaner.candidates)::bigint AS candidate_users,
    (SELECT count(*) FROM orphan_cleaner.rechecks WHERE alive_at IS NOT NULL)::bigint AS resurrected_users,
    (SELECT count(*) FROM orphan_cleaner.candidates WHERE blocked_since IS NOT NULL)::bigint AS blocked_users,
    (p.paused_at IS NOT NULL)::boolean AS paused,
    coalesce(extract(EPOCH FROM now() - p.paused_at), 0)::float8 AS pause_age
FROM orphan_cleaner.run_totals() AS a (totals)
LEFT JOIN orphan_cleaner.runs AS o ON o.state = 'running'
LEFT JOIN LATERAL (
    SELECT users_checked, users_unknown, members_held, members_kept_young
    FROM orphan_cleaner.runs
    WHERE kind = 'clean'
        AND state NOT IN ('running', 'abandoned')
    ORDER BY run_id DESC
    LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    -- Until it is settled: a refused run counts as long as no later one succeeded.
    SELECT refused.breaker
    FROM orphan_cleaner.runs AS refused
    WHERE refused.kind = 'clean'
        AND refused.state = 'refused'
        AND refused.run_id > coalesce((
            SELECT max(settled.run_id)
            FROM orphan_cleaner.runs AS settled
            WHERE settled.kind = 'clean' AND settled.state = 'succeeded'
        ), 0)
    ORDER BY refused.run_id DESC
    LIMIT 1
) AS t ON true
LEFT JOIN orphan_cleaner.pauses AS p ON p.resumed_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsState, these values
EXPLAIN (:options) EXECUTE "MetricsState";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsState, any values
EXPLAIN (:options) EXECUTE "MetricsState";

-- How many runs of each kind ended in each state, those that never happened too.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards. Rows: the last run, which has the sums of all before.
PREPARE "MetricsRuns" AS
SELECT
    k.kind::text AS kind,
    s.state::text AS state,
    coalesce((t.totals ->> (k.kind || ' ' || s.state))::bigint, 0)::bigint AS runs
FROM unnest(ARRAY['clean', 'restore']) AS k (kind)
CROSS JOIN unnest(ARRAY['succeeded', 'incomplete', 'refused', 'failed', 'paused', 'abandoned']) AS s (state)
CROSS JOIN orphan_cleaner.run_totals() AS t (totals)
ORDER BY k.kind, s.state;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsRuns, these values
EXPLAIN (:options) EXECUTE "MetricsRuns";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsRuns, any values
EXPLAIN (:options) EXECUTE "MetricsRuns";

-- What runs did with each target: all of them, and the last one that was judged.
-- Locks: ACCESS SHARE on targets, runs and run_targets. Index: run_targets_pkey. Rows: a few a target; of runs as MetricsRuns.
PREPARE "MetricsTargets" AS
SELECT
    t.name AS target,
    coalesce((s.totals ->> ('rows_deleted ' || t.name))::bigint, 0)::bigint AS deleted_total,
    coalesce(l.rows_due, 0)::bigint AS due,
    coalesce(l.rows_deleted, 0)::bigint AS deleted,
    coalesce(l.rows_kept_young, 0)::bigint AS kept_young,
    coalesce(l.rows_held, 0)::bigint AS held,
    coalesce(l.rows_changed, 0)::bigint AS changed,
    coalesce(l.rows_blocked, 0)::bigint AS blocked
FROM orphan_cleaner.targets_in_order AS t
CROSS JOIN orphan_cleaner.run_totals() AS s (totals)
LEFT JOIN orphan_cleaner.run_targets AS l
    ON l.target = t.name
    AND l.run_id = (SELECT max(m.run_id) FROM orphan_cleaner.run_targets AS m)
ORDER BY t.n;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsTargets, these values
EXPLAIN (:options) EXECUTE "MetricsTargets";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsTargets, any values
EXPLAIN (:options) EXECUTE "MetricsTargets";

-- For how many days after today each partitioned table has its partitions, without a gap; -1: not even for today.
-- Looks 62 days ahead.
-- Locks: none beyond the catalog. Rows: 130 a target.
PREPARE "MetricsPartitions" AS
SELECT
    t.parent::text AS table_name,
    (coalesce(min(d.ahead) FILTER (WHERE i.inhrelid IS NULL), 63) - 1)::bigint AS days_ahead
FROM (
    SELECT split_part(o.audit_table, '.', 2) AS parent, o.audit_table AS evidence, 'YYYYMM' AS pattern
    FROM orphan_cleaner.targets AS o
    UNION ALL
    SELECT split_part(o.backup_table, '.', 2), o.backup_table, 'YYYYMMDD'
    FROM orphan_cleaner.targets AS o
) AS t
CROSS JOIN generate_series(0, 62) AS d (ahead)
LEFT JOIN pg_catalog.pg_inherits AS i
    ON i.inhparent = to_regclass(t.evidence)
    AND i.inhrelid = to_regclass(t.evidence || '_' || to_char((now() AT TIME ZONE 'UTC') + make_interval(days => d.ahead), t.pattern))
GROUP BY t.parent
ORDER BY t.parent;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsPartitions, these values
EXPLAIN (:options) EXECUTE "MetricsPartitions";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsPartitions, any values
EXPLAIN (:options) EXECUTE "MetricsPartitions";

-- What a run would delete now: members older than the retention, whose user's clock is past it, and
-- no hold on either. The audit's DEFAULT partition is counted up to 100,000 rows.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id. Rows: the ledger, and the members of due users.
PREPARE "MetricsDue" AS
SELECT
    count(*)::bigint AS due_users,
    coalesce(sum(m.members), 0)::bigint AS due_members,
    -- Those that count in a breaker.
    coalesce(sum(m.members) FILTER (WHERE c.approved_run IS NULL), 0)::bigint AS due_members_judged,
    coalesce(extract(EPOCH FROM now() - (min(c.first_missing_at) + $1::interval)), 0)::float8 AS oldest_due_age,
    (
        SELECT count(*)
        FROM (SELECT FROM public.conversation_members_audit_default LIMIT 100000) AS rows_there
    )::bigint AS audit_default_rows
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
        AND m.joined_at < now() - $1::interval
        -- NOT IN is hashed once, whatever the statistics say of holds. It is never null here.
        AND m.conversation_id NOT IN (
            SELECT h.conversation_id
            FROM orphan_cleaner.holds_in_force AS h
            WHERE h.conversation_id IS NOT NULL
        )
) AS m
WHERE c.first_missing_at <= now() - $1::interval
    AND c.user_id NOT IN (
        SELECT h.user_id
        FROM orphan_cleaner.holds_in_force AS h
        WHERE h.user_id IS NOT NULL
    )
    AND m.members > 0;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsDue, these values
EXPLAIN (:options) EXECUTE "MetricsDue" (:retention);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsDue, any values
EXPLAIN (:options) EXECUTE "MetricsDue" (:retention);

-- The figures and limits of the breakers as they are now, by the function that judges a run: the windows with the members that
-- are due now, the last run's share of newly missing users. What a refused run found counts until a later run is judged. No
-- row before the first judged run. Counts no member.
-- Locks: ACCESS SHARE on our tables.
-- Index: runs_pkey, backwards; candidates and hours are read whole.
-- Rows: the ledger; an hour each of the audit's window.
PREPARE "MetricsBreakers" AS
WITH judged AS (
    SELECT
        r.settings, r.users_checked, r.members_total, r.judged_at,
        CASE WHEN r.judged_at IS NULL THEN r.users_new ELSE 0 END AS refused_new,
        CASE WHEN r.judged_at IS NULL THEN r.members_due ELSE 0 END AS refused_due,
        r.users_new
    FROM orphan_cleaner.runs AS r
    WHERE r.kind = 'clean'
        AND (r.judged_at IS NOT NULL OR r.breaker IS NOT NULL)
    ORDER BY r.run_id DESC
    LIMIT 1
),
facts AS (
    SELECT
        j.*,
        jsonb_build_object(
            'users_checked', j.users_checked,
            'users_new', j.refused_new,
            'candidates', j.refused_new + (SELECT count(*) FROM orphan_cleaner.candidates AS c WHERE c.approved_run IS NULL),
            'targets', (
                SELECT jsonb_object_agg(t.name, jsonb_build_object(
                    'rows_due', CASE t.name WHEN 'conversation_members' THEN greatest(j.refused_due, $1::bigint) ELSE 0 END,
                    -- Given, so that nothing is counted.
                    'rows_total', coalesce(
                        (SELECT h.rows_total FROM orphan_cleaner.hours AS h WHERE h.target = t.name AND h.rows_total > 0 ORDER BY h.hour DESC LIMIT 1),
                        CASE t.name WHEN 'conversation_members' THEN greatest(j.members_total, j.users_checked) ELSE 0 END
                    )
                ))
                FROM orphan_cleaner.targets AS t
            )
        ) AS now
    FROM judged AS j
)
SELECT
    b.breaker::text AS breaker,
    b.figure::float8 AS figure,
    coalesce(b.limit_value, 0)::float8 AS limit_value,
    coalesce(
        CASE b.breaker
            WHEN 'history' THEN (f.settings ->> 'history')::float8 > 0
            WHEN 'delete-rows' THEN b.limit_value IS NOT NULL
            ELSE b.limit_value < 1
        END, false
    )::boolean AS is_on,
    -- For new-missing-rate: users who went missing within a day and a week, and how many usually do.
    (f.refused_new + coalesce((SELECT sum(h.users_new) FROM orphan_cleaner.hours AS h WHERE h.target = '' AND h.hour > now() - interval '1 day'), 0))::float8 AS new_1d,
    coalesce(m.said[1], 'NaN')::float8 AS new_7d,
    coalesce(m.said[3]::float8 / m.said[2]::float8, 'NaN')::float8 AS usual_1d,
    coalesce(m.said[3], 'NaN')::float8 AS usual_7d
FROM facts AS f
CROSS JOIN LATERAL (
    VALUES
    (true, f.now),
    -- The windows have the last run's finds already; its own share is of them alone. The hour's sum leaves out what the judgement did.
    (false, f.now || jsonb_build_object('users_new', greatest(
        f.refused_new,
        least(f.users_new, (SELECT h.users_new FROM orphan_cleaner.hours AS h WHERE h.target = '' AND h.hour <= f.judged_at ORDER BY h.hour DESC LIMIT 1))
    )))
) AS k (is_now, facts)
CROSS JOIN LATERAL orphan_cleaner.breakers(f.settings, k.facts) AS b
    -- The function returns the usual within its sentence only.
CROSS JOIN LATERAL (
    SELECT regexp_match(b.message, '^(\S+) users are newly missing within (\S+) days, limit twice the usual (\S+) and') AS said
) AS m
WHERE k.is_now = (b.breaker <> 'new-missing-share')
    AND b.target IN ('', 'conversation_members')
    -- Nothing is known of the others until a run checks.
    AND b.breaker NOT IN ('clock', 'canary-alive', 'canary-dead', 'recently-active', 'user-count');
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsBreakers, these values
EXPLAIN (:options) EXECUTE "MetricsBreakers" (:due_members);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsBreakers, any values
EXPLAIN (:options) EXECUTE "MetricsBreakers" (:due_members);

-- The members of all candidates, due or not.
-- Locks: ACCESS SHARE on conversation_members and candidates.
-- Index: conversation_members_user_id. Rows: the ledger and its members, never the whole table.
PREPARE "MetricsCandidateMembers" AS
SELECT coalesce(sum(m.members), 0)::bigint AS members
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsCandidateMembers, these values
EXPLAIN (:options) EXECUTE "MetricsCandidateMembers";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsCandidateMembers, any values
EXPLAIN (:options) EXECUTE "MetricsCandidateMembers";

-- Every partition of backup and audit, oldest backup first, and why it is kept: empty means that prune drops it.
-- Locks: ACCESS SHARE on the tables of ours. Index: none. Rows: the partitions; while holds are in
-- force the backups past the restore window are read.
PREPARE "PartitionVerdicts" AS
SELECT
    v.parent::text AS parent,
    v.partition_name::text AS partition_name,
    v.lower_bound::timestamptz AS lower_bound,
    v.upper_bound::timestamptz AS upper_bound,
    v.rows_estimate::bigint AS rows_estimate,
    v.bytes::bigint AS bytes,
    v.is_expired::boolean AS is_expired,
    coalesce(v.kept_because, '')::text AS kept_because
FROM orphan_cleaner.prune_look($1::interval, $2::interval) AS v
    -- Not the DEFAULT partition, nor one without an end.
WHERE v.upper_bound IS NOT NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionVerdicts, these values
EXPLAIN (:options) EXECUTE "PartitionVerdicts" (:restore_window, :audit_window);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionVerdicts, any values
EXPLAIN (:options) EXECUTE "PartitionVerdicts" (:restore_window, :audit_window);

-- Drops one partition that is past its window; returns why not, or nothing.
-- Locks: SHARE on holds; ACCESS EXCLUSIVE on the partition, the audit's DEFAULT one and, for about
-- a millisecond, the parent; each waits 300 ms at most. Index: none. Rows: none.
PREPARE "PartitionDrop" AS
SELECT coalesce(
    orphan_cleaner.prune_drop($1::text, $2::interval, $3::interval), ''
)::text AS kept_because;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionDrop, these values
EXPLAIN (:options) EXECUTE "PartitionDrop" (:partition_name, :restore_window, :audit_window);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionDrop, any values
EXPLAIN (:options) EXECUTE "PartitionDrop" (:partition_name, :restore_window, :audit_window);

-- Deletes what only describes evidence that is gone, at most max_rows of each kind.
-- Locks: ROW EXCLUSIVE on refusals, rechecks and restores. Index: rechecks_deleted_at; refusals and restores may be read whole.
-- Rows: three times max_rows.
PREPARE "PartitionRows" AS
SELECT p.refusals::bigint AS refusals, p.rechecks::bigint AS rechecks, p.restores::bigint AS restores
FROM orphan_cleaner.prune_rows($1::interval, $2::interval, $3::bigint) AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionRows, these values
EXPLAIN (:options) EXECUTE "PartitionRows" (:refusal_window, :audit_window, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionRows, any values
EXPLAIN (:options) EXECUTE "PartitionRows" (:refusal_window, :audit_window, :max_rows);

-- Pauses all runs. Fails on pauses_one_in_force when they are paused already.
-- Locks: ROW EXCLUSIVE on pauses; waits for the chunks in flight, 5 s at most. Index: none. Rows: one.
PREPARE "PauseBegin" AS
SELECT orphan_cleaner.pause($1::text)::bigint AS pause_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseBegin, these values
EXPLAIN (:options) EXECUTE "PauseBegin" (:reason);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseBegin, any values
EXPLAIN (:options) EXECUTE "PauseBegin" (:reason);

-- Lets runs continue; 0: they were not paused.
-- Locks: ROW EXCLUSIVE on pauses. Index: pauses_one_in_force. Rows: at most one.
PREPARE "PauseEnd" AS
SELECT coalesce(orphan_cleaner.resume(), 0)::bigint AS pause_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseEnd, these values
EXPLAIN (:options) EXECUTE "PauseEnd";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseEnd, any values
EXPLAIN (:options) EXECUTE "PauseEnd";

-- The pause in force, if there is one.
-- Locks: ACCESS SHARE on pauses. Index: pauses_one_in_force. Rows: at most one.
PREPARE "PauseInForce" AS
SELECT p.reason, p.paused_at, p.paused_by
FROM orphan_cleaner.pauses AS p
WHERE p.resumed_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseInForce, these values
EXPLAIN (:options) EXECUTE "PauseInForce";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseInForce, any values
EXPLAIN (:options) EXECUTE "PauseInForce";

-- What the server is and how this session stands in it.
-- Locks: none.
PREPARE "PreflightServer" AS
SELECT
    current_setting('server_version_num')::integer AS version_num,
    current_setting('server_version')::text AS version,
    pg_is_in_recovery()::boolean AS in_recovery,
    current_setting('transaction_read_only')::text AS read_only,
    current_setting('session_replication_role')::text AS replication_role,
    current_database()::text AS database_name,
    session_user::text AS role_name,
    current_user::text AS acting_as,
    now()::timestamptz AS database_time;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightServer, these values
EXPLAIN (:options) EXECUTE "PreflightServer";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightServer, any values
EXPLAIN (:options) EXECUTE "PreflightServer";

-- Which of our tables are there, and what this role may not do that a run needs.
-- Locks: none beyond the catalog.
PREPARE "PreflightObjects" AS
SELECT
    (to_regclass('public.conversation_members') IS NOT NULL)::boolean AS has_members,
    (to_regclass('public.orphan_cleaner_goose') IS NOT NULL)::boolean AS has_goose,
    (to_regclass('public.orphan_runs') IS NOT NULL)::boolean AS is_development,
    -- Whether surroundings() is there, and this role may call it.
    (2 = (
        SELECT count(*)
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
            AND p.proname IN ('surroundings', 'effects_check')
            AND has_schema_privilege(p.pronamespace, 'USAGE')
            AND has_function_privilege(p.oid, 'EXECUTE')
    ))::boolean AS has_surroundings,
    -- What the migrations made and somebody dropped since.
    coalesce((
        SELECT string_agg(ours.object_name, ', ')
        FROM unnest(ARRAY[
            'orphan_cleaner.runs', 'orphan_cleaner.run_targets', 'orphan_cleaner.targets', 'orphan_cleaner.targets_in_order',
            'orphan_cleaner.pauses', 'orphan_cleaner.limits', 'orphan_cleaner.hours',
            'orphan_cleaner.candidates', 'orphan_cleaner.sightings', 'orphan_cleaner.coverage', 'orphan_cleaner.unknowns',
            'orphan_cleaner.rechecks', 'orphan_cleaner.holds', 'orphan_cleaner.holds_in_force', 'orphan_cleaner.refusals',
            'orphan_cleaner.approvals', 'orphan_cleaner.restores', 'orphan_cleaner.event_cursors', 'orphan_cleaner.effects', 'orphan_cleaner.promotions', 'public.conversation_members_audit',
            'public.conversation_members_audit_default', 'public.conversation_members_backup'
        ]) AS ours (object_name)
        -- Not to_regclass, which fails without USAGE on the schema.
        WHERE NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace(split_part(ours.object_name, '.', 1))
                AND c.relname = split_part(ours.object_name, '.', 2)
        )
    ), '')::text AS objects_missing,
    coalesce((
        SELECT string_agg(missing.grant_name, ', ' ORDER BY missing.grant_name)
        FROM (
            SELECT 'USAGE on schema orphan_cleaner' AS grant_name
            WHERE NOT has_schema_privilege(to_regnamespace('orphan_cleaner'), 'USAGE')
            UNION ALL
            SELECT 'SELECT on ' || c.oid::regclass
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace('orphan_cleaner')
                AND c.relname IN (
                    'run_targets', 'targets', 'targets_in_order', 'pauses', 'limits', 'hours', 'candidates', 'sightings', 'coverage', 'unknowns', 'rechecks', 'holds_in_force', 'effects',
                    'refusals', 'approvals', 'event_cursors'
                )
                AND NOT has_table_privilege(c.oid, 'SELECT')
            UNION ALL
            -- All but the tokens, column by column.
            SELECT 'SELECT on ' || c.oid::regclass
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace('orphan_cleaner')
                AND c.relname = 'runs'
                AND NOT has_any_column_privilege(c.oid, 'SELECT')
            UNION ALL
            SELECT 'EXECUTE on orphan_cleaner.' || p.proname
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
                AND p.proname IN (
                    'run_begin', 'run_heartbeat', 'run_stage', 'run_judge', 'members_at_stake', 'run_finish', 'assess', 'breakers',
                    'target_page', 'target_holders', 'sweep_chunk', 'sweep_returned',
                    'recheck_write', 'partitions_ensure', 'target_rows', 'target_canaries', 'surroundings', 'effects_check', 'run_totals', 'event_sink', 'event_page', 'event_advance'
                )
                AND NOT has_function_privilege(p.oid, 'EXECUTE')
        ) AS missing
    ), '')::text AS grants_missing;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightObjects, these values
EXPLAIN (:options) EXECUTE "PreflightObjects";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightObjects, any values
EXPLAIN (:options) EXECUTE "PreflightObjects";

-- The version of the newest migration that is applied.
-- Locks: ACCESS SHARE on orphan_cleaner_goose. Index: none. Rows: a dozen or two.
PREPARE "PreflightVersion" AS
SELECT coalesce(max(version_id), 0)::bigint AS version
FROM (
    SELECT DISTINCT ON (version_id) version_id, is_applied
    FROM public.orphan_cleaner_goose
    ORDER BY version_id, id DESC
) AS newest
WHERE is_applied;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightVersion, these values
EXPLAIN (:options) EXECUTE "PreflightVersion";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightVersion, any values
EXPLAIN (:options) EXECUTE "PreflightVersion";

-- Whether the targets, what is around them and what we made there suit a run.
-- Locks: none beyond the catalog. Rows: a dozen, and two a target.
PREPARE "PreflightSurroundings" AS
SELECT s.check_name::text AS check_name, s.status::text AS status, s.message::text AS message, s.hint::text AS hint
FROM orphan_cleaner.surroundings() AS s
UNION ALL
SELECT e.check_name, e.status, e.message, e.hint
FROM orphan_cleaner.effects_check() AS e;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightSurroundings, these values
EXPLAIN (:options) EXECUTE "PreflightSurroundings";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightSurroundings, any values
EXPLAIN (:options) EXECUTE "PreflightSurroundings";

-- Makes types come out with their schema for the rest of the transaction, so that a statement that is
-- printed means the same wherever it is run.
-- Locks: none.
PREPARE "PreflightQualify" AS
SELECT set_config('search_path', 'pg_catalog', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightQualify, these values
EXPLAIN (:options) EXECUTE "PreflightQualify";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightQualify, any values
EXPLAIN (:options) EXECUTE "PreflightQualify";

-- How the backup's columns differ from those of conversation_members, each with the statement that brings
-- the backup along (up), the one that takes it back (down), and the condition on a row of the backup under
-- which either would lose a value (up_loses, down_loses). Where up is empty no statement helps.
-- Collations, defaults, identities, NOT NULL and whether a column is generated do not count: the backup
-- holds values. A new column that is never null, or generated, gets values in the older backups, too, as it
-- did in the members that stayed, or these could not be restored; up_settle makes it a plain one again.
-- Locks: none beyond the catalog. Rows: the columns that differ, in the order in which to run them.
PREPARE "PreflightDrift" AS
WITH RECURSIVE unwrapped AS (
    SELECT
        a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod,
        a.atttypid AS base_id, a.atttypmod AS base_mod
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid IN (
            to_regclass('public.conversation_members'), to_regclass('public.conversation_members_backup')
        )
        AND a.attnum > 0
        AND NOT a.attisdropped
    UNION ALL
    SELECT u.attrelid, u.attnum, u.attname, u.atttypid, u.atttypmod, d.typbasetype, d.typtypmod
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS d ON d.oid = u.base_id AND d.typtype = 'd'
),
columns AS (
    SELECT
        u.attrelid, u.attname, u.atttypid, u.atttypmod, u.base_id, u.base_mod,
        format_type(u.atttypid, u.atttypmod) AS declared,
        -- A domain is stored as its base type: its constraints would refuse old rows of the backup, and
        -- the NULLs of those that were there before the column.
        format_type(u.base_id, u.base_mod) AS stored,
        t.typcategory,
        a.attgenerated <> '' AS is_generated,
        a.attidentity <> '' AS is_identity,
        a.attnotnull OR o.typnotnull AS is_required,
        coalesce(
            pg_get_expr(d.adbin, d.adrelid),
            pg_get_expr(o.typdefaultbin, 0),
            CASE WHEN a.attidentity <> '' THEN format(
                'nextval(%L::regclass)', pg_get_serial_sequence('public.conversation_members', a.attname::text)
            ) END
        ) AS expression
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS t ON t.oid = u.base_id AND t.typtype <> 'd'
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = u.attrelid AND a.attnum = u.attnum
    JOIN pg_catalog.pg_type AS o ON o.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
),
pairs AS (
    SELECT
        coalesce(m.attname, b.attname) AS attname,
        m.attname IS NOT NULL AS in_members,
        b.attname IS NOT NULL AS in_backup,
        m.declared AS members_type,
        b.declared AS backup_type,
        m.stored AS new_type,
        m.expression,
        coalesce(m.is_identity, false) AS is_identity,
        CASE
            WHEN m.is_generated THEN 'EXPRESSION'
            WHEN m.is_required AND m.expression IS NOT NULL THEN 'DEFAULT'
            ELSE ''
        END AS filled_by,
        -- No data is thrown away: the column steps aside, under the first such name that is free.
        (
            SELECT free.new_name
            FROM (
                SELECT n, ('retired_' || CASE n WHEN 1 THEN '' ELSE n::text || '_' END || coalesce(m.attname, b.attname))::name AS new_name
                FROM generate_series(1, 1000) AS n
            ) AS free
            WHERE NOT EXISTS (SELECT FROM columns AS taken WHERE taken.attname = free.new_name)
            ORDER BY free.n
            LIMIT 1
        ) AS retired_name,
        -- An explicit cast where there is one; by way of text otherwise.
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = b.base_id AND c.casttarget = m.base_id
        ) THEN '::' ELSE '::text::' END AS up_cast,
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = m.base_id AND c.casttarget = b.base_id
        ) THEN '::' ELSE '::text::' END AS down_cast,
        CASE
            WHEN m.attname IN ('backed_up_at', 'run_id') THEN 'clash'
            -- What the queries and the trigger themselves read, and cannot do without.
            WHEN coalesce(m.attname, b.attname) IN ('conversation_id', 'user_id', 'joined_at')
                AND (m.attname IS NULL OR b.attname IS NOT NULL) THEN 'needed'
            WHEN b.attname IS NULL THEN 'gained'
            WHEN m.attname IS NULL THEN 'lost'
            ELSE 'retyped'
        END AS kind
    FROM (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members')) AS m
    FULL JOIN (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members_backup')) AS b
        ON b.attname = m.attname
    WHERE CASE
        WHEN b.attname IS NULL THEN true
        -- The backup's own, and those that were retired before.
        WHEN m.attname IS NULL THEN b.attname NOT IN ('backed_up_at', 'run_id') AND NOT starts_with(b.attname, 'retired_')
        WHEN m.attname IN ('backed_up_at', 'run_id') THEN true
        ELSE (b.atttypid, b.atttypmod) NOT IN ((m.atttypid, m.atttypmod), (m.base_id, m.base_mod))
    END
)
SELECT
    p.kind::text AS kind,
    p.attname::text AS column_name,
    coalesce(p.members_type, '')::text AS members_type,
    coalesce(p.backup_type, '')::text AS backup_type,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup ADD COLUMN %I %s', p.attname, p.new_type)
            || CASE p.filled_by
                WHEN 'EXPRESSION' THEN ' GENERATED ALWAYS AS (' || p.expression || ') STORED'
                WHEN 'DEFAULT' THEN ' DEFAULT ' || p.expression
                ELSE ''
            END
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.attname, p.retired_name)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.new_type, p.up_cast
        )
        ELSE ''
    END::text AS up,
    CASE
        WHEN p.kind = 'gained' AND p.filled_by <> ''
            THEN format('ALTER TABLE public.conversation_members_backup ALTER COLUMN %I DROP %s', p.attname, p.filled_by)
        ELSE ''
    END::text AS up_settle,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup DROP COLUMN %I', p.attname)
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.retired_name, p.attname)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.backup_type, p.down_cast
        )
        ELSE ''
    END::text AS down,
    CASE p.kind
        -- There and back: an explicit cast truncates and rounds without a word.
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.up_cast, p.new_type, p.down_cast, p.backup_type
        )
        ELSE ''
    END::text AS up_loses,
    CASE p.kind
        WHEN 'gained' THEN CASE
            WHEN p.filled_by = 'EXPRESSION' THEN ''
            -- What is the default comes back as it.
            WHEN p.filled_by = 'DEFAULT' AND NOT p.is_identity THEN format('%I::text IS DISTINCT FROM (%s)::text', p.attname, p.expression)
            ELSE format('%I IS NOT NULL', p.attname)
        END
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.down_cast, p.backup_type, p.up_cast, p.new_type
        )
        ELSE ''
    END::text AS down_loses,
    -- Literals for the text of a refusal: the name, and for a new type what keeps the old values as they are.
    quote_literal(p.attname)::text AS quoted_name,
    quote_literal(format(
        'ALTER TABLE public.conversation_members_backup RENAME COLUMN %1$I TO %2$I;'
        ' ALTER TABLE public.conversation_members_backup ADD COLUMN %1$I %3$s',
        p.attname, p.retired_name, p.new_type
    ))::text AS quoted_instead
FROM pairs AS p
    -- Who steps aside does so first, who follows others last.
ORDER BY array_position(ARRAY['clash', 'needed', 'lost', 'retyped', 'gained'], p.kind), p.filled_by = 'EXPRESSION', p.attname;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightDrift, these values
EXPLAIN (:options) EXECUTE "PreflightDrift";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightDrift, any values
EXPLAIN (:options) EXECUTE "PreflightDrift";

-- Makes the partitions of today and the next days where they are not there yet.
-- Locks: SHARE UPDATE EXCLUSIVE on the parents when it makes one, under a lock_timeout of 3 s. Index: none.
PREPARE "PartitionEnsure" AS
SELECT orphan_cleaner.partitions_ensure($1::integer)::integer AS made;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionEnsure, these values
EXPLAIN (:options) EXECUTE "PartitionEnsure" (:days_ahead);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionEnsure, any values
EXPLAIN (:options) EXECUTE "PartitionEnsure" (:days_ahead);

-- Whether the backup partitions of today and tomorrow and the audit partition of this month are attached, of every
-- target, and whether the DEFAULT partition of the members' audit caught rows.
-- Locks: ACCESS SHARE on targets and on the audit's DEFAULT partition. Index: none. Rows: one of it at most.
PREPARE "PartitionsThere" AS
SELECT
    bool_and(to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') = ANY (p.days))::boolean AS today,
    bool_and(to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD') = ANY (p.days))::boolean AS tomorrow,
    bool_and(to_char(now() AT TIME ZONE 'UTC', 'YYYYMM') = ANY (p.months))::boolean AS month,
    EXISTS (SELECT FROM public.conversation_members_audit_default)::boolean AS default_in_use
FROM (
    SELECT
        ARRAY(
            SELECT substr(c.relname, length(split_part(t.backup_table, '.', 2)) + 2)
            FROM pg_catalog.pg_inherits AS i
            JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
            -- No row goes into one that a DETACH CONCURRENTLY has not finished with.
            WHERE i.inhparent = to_regclass(t.backup_table) AND NOT i.inhdetachpending
        ) AS days,
        ARRAY(
            SELECT substr(c.relname, length(split_part(t.audit_table, '.', 2)) + 2)
            FROM pg_catalog.pg_inherits AS i
            JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass(t.audit_table) AND NOT i.inhdetachpending
        ) AS months
    FROM orphan_cleaner.targets AS t
) AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionsThere, these values
EXPLAIN (:options) EXECUTE "PartitionsThere";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionsThere, any values
EXPLAIN (:options) EXECUTE "PartitionsThere";

-- How many connections there may be, and how many there are. A limit of -1 is none.
-- Locks: none beyond the catalog.
PREPARE "PreflightConnections" AS
SELECT
    current_setting('max_connections')::integer AS max_connections,
    (
        current_setting('superuser_reserved_connections')::integer
        + coalesce(current_setting('reserved_connections', true)::integer, 0)
    )::integer AS reserved,
    (SELECT sum(s.numbackends) FROM pg_catalog.pg_stat_database AS s)::integer AS used,
    (
        SELECT count(*)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.application_name = $1::text
            AND a.usename = session_user
    )::integer AS ours,
    (SELECT r.rolconnlimit FROM pg_catalog.pg_roles AS r WHERE r.rolname = session_user)::integer AS role_limit,
    (SELECT d.datconnlimit FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())::integer AS database_limit;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightConnections, these values
EXPLAIN (:options) EXECUTE "PreflightConnections" (:application_name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightConnections, any values
EXPLAIN (:options) EXECUTE "PreflightConnections" (:application_name);

-- Who in this database may write less to temporary files than conversation_members is large, the least first. A delete
-- of all members collects them for the audit in memory, and beyond work_mem in such a file. '' is every role.
-- Locks: none beyond the catalog. Rows: the settings of roles and databases that name temp_file_limit.
PREPARE "PreflightTempFiles" AS
SELECT
    l.role_name::text AS role_name,
    pg_size_pretty(l.bytes)::text AS temp_file_limit,
    pg_size_pretty(t.bytes)::text AS table_size,
    -- A row on disk is the longer for its header.
    (l.bytes / greatest(t.bytes / greatest(t.reltuples, 1), 1))::bigint AS members
FROM (
    SELECT
        coalesce(r.rolname, '') AS role_name,
        CASE WHEN s.setting ~ '^-?[0-9]+$' THEN s.setting::bigint * 1024 ELSE pg_size_bytes(s.setting) END AS bytes
    FROM (
        SELECT d.setrole, substr(c.setting, 17) AS setting
        FROM pg_catalog.pg_db_role_setting AS d
        CROSS JOIN unnest(d.setconfig) AS c (setting)
        WHERE c.setting LIKE 'temp\_file\_limit=%'
            AND d.setdatabase IN (0, (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database()))
        UNION ALL
        SELECT 0, current_setting('temp_file_limit')
    ) AS s
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
) AS l
CROSS JOIN (
    SELECT pg_table_size(c.oid) AS bytes, c.reltuples
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass('public.conversation_members')
) AS t
WHERE l.bytes >= 0 AND l.bytes < t.bytes
ORDER BY l.bytes, l.role_name;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightTempFiles, these values
EXPLAIN (:options) EXECUTE "PreflightTempFiles";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightTempFiles, any values
EXPLAIN (:options) EXECUTE "PreflightTempFiles";

-- The users to be rechecked in this run: in the order of ids, after those of the last run that rechecked; behind the last
-- id it begins again with the first.
-- Locks: ACCESS SHARE on rechecks and runs. Index: rechecks_pkey, in order; runs_rechecked, backwards. Rows: twice max_users.
PREPARE "RecheckPage" AS
WITH last_one AS (
    SELECT coalesce(
        (
            SELECT r.rechecked_through
            FROM orphan_cleaner.runs AS r
            WHERE r.rechecked_through IS NOT NULL
            ORDER BY r.run_id DESC
            LIMIT 1
        ), '00000000-0000-0000-0000-000000000000'
    ) AS user_id
)
SELECT t.user_id
FROM (
    (
        SELECT d.user_id, 1 AS lap
        FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id > (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT $1::bigint
    )
    UNION ALL
    (
        SELECT d.user_id, 2 AS lap
        FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id <= (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT $1::bigint
    )
) AS t
ORDER BY t.lap, t.user_id
LIMIT $1::bigint;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RecheckPage, these values
EXPLAIN (:options) EXECUTE "RecheckPage" (:max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RecheckPage, any values
EXPLAIN (:options) EXECUTE "RecheckPage" (:max_users);

-- Records what rechecks found, and after whom the next run continues; returns who is alive again while deleted rows
-- can be restored.
-- Locks: ROW EXCLUSIVE on rechecks and runs; ACCESS SHARE on backup and audit, where somebody is alive.
-- Index: rechecks_pkey, runs_pkey. Rows: as many as given; all backups, read once, and the audit is read, where somebody
-- is alive.
PREPARE "RecheckWrite" AS
SELECT w.user_id::uuid AS user_id, w.members::bigint AS members
FROM orphan_cleaner.recheck_write($1::bigint, $2::uuid, $3::uuid [], $4::uuid [], $5::uuid) AS w
ORDER BY w.user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RecheckWrite, these values
EXPLAIN (:options) EXECUTE "RecheckWrite" (:run_id, :token, :alive, :missing, :reached);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RecheckWrite, any values
EXPLAIN (:options) EXECUTE "RecheckWrite" (:run_id, :token, :alive, :missing, :reached);

-- The users who are alive again and whose rows can be restored, as last seen.
-- Locks: ACCESS SHARE on rechecks. Index: rechecks_alive. Rows: almost none.
PREPARE "RecheckAlive" AS
SELECT d.user_id, d.alive_at::timestamptz AS alive_at
FROM orphan_cleaner.rechecks AS d
WHERE d.alive_at IS NOT NULL
ORDER BY d.user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RecheckAlive, these values
EXPLAIN (:options) EXECUTE "RecheckAlive";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RecheckAlive, any values
EXPLAIN (:options) EXECUTE "RecheckAlive";

-- Takes users whose rows a restore brought back off the list: every run checks them again.
-- Locks: ROW EXCLUSIVE on rechecks; ACCESS SHARE on backup and audit, where somebody is alive.
-- Index: restores_pkey, rechecks_pkey. Rows: the users of the restore; all backups, read once, and the audit is read,
-- where somebody is alive.
PREPARE "RecheckSettle" AS
SELECT orphan_cleaner.recheck_settle($1::bigint, $2::uuid);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RecheckSettle, these values
EXPLAIN (:options) EXECUTE "RecheckSettle" (:run_id, :token);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RecheckSettle, any values
EXPLAIN (:options) EXECUTE "RecheckSettle" (:run_id, :token);

-- The last refused run, unless a later run succeeded, or used its approval and is incomplete: some of its users may be blocked.
-- A restore does not settle it. A refused revert is not listed: whoever makes it is told, and nobody can approve it.
-- Locks: ACCESS SHARE on runs and approvals. Index: runs_refused, runs_succeeded, backwards; none on the approvals. Rows: two, and a few approvals.
PREPARE "RefusalUnsettled" AS
SELECT r.run_id, r.breaker, r.error, r.finished_at
FROM (
    SELECT o.run_id, o.breaker, o.error, o.finished_at
    FROM orphan_cleaner.runs AS o
    WHERE o.state = 'refused' AND o.kind = 'clean'
    ORDER BY o.run_id DESC
    LIMIT 1
) AS r
WHERE r.run_id > coalesce((
        SELECT later.run_id
        FROM orphan_cleaner.runs AS later
        WHERE later.state = 'succeeded' AND later.kind = 'clean'
        ORDER BY later.run_id DESC
        LIMIT 1
    ), 0)
    AND NOT EXISTS (
        SELECT
        FROM orphan_cleaner.approvals AS a
        JOIN orphan_cleaner.runs AS u ON u.run_id = a.used_by_run
        WHERE a.run_id = r.run_id AND u.state = 'incomplete'
    );
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalUnsettled, these values
EXPLAIN (:options) EXECUTE "RefusalUnsettled";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalUnsettled, any values
EXPLAIN (:options) EXECUTE "RefusalUnsettled";

-- What approving a refused run would delete.
-- Locks: ACCESS SHARE on conversation_members. Index: refusals_pkey, conversation_members_user_id.
-- Rows: the members of the due users.
PREPARE "RefusalSummary" AS
SELECT
    r.kind,
    r.state,
    r.breaker,
    (SELECT count(*) FROM orphan_cleaner.refusals AS f WHERE f.run_id = r.run_id AND f.is_due)::bigint AS users_due,
    (SELECT count(*) FROM orphan_cleaner.refusals AS f WHERE f.run_id = r.run_id AND NOT f.is_due)::bigint AS users_new,
    m.members::bigint AS members,
    m.conversations::bigint AS conversations
FROM orphan_cleaner.runs AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS members, count(DISTINCT m.conversation_id) AS conversations
    FROM orphan_cleaner.refusals AS f
        -- User by user, by the index: a join may well be planned as a scan of the table.
    CROSS JOIN LATERAL (
        SELECT i.conversation_id
        FROM public.conversation_members AS i
        WHERE i.user_id = f.user_id
        OFFSET 0
    ) AS m
    WHERE f.run_id = r.run_id AND f.is_due
) AS m
WHERE r.run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalSummary, these values
EXPLAIN (:options) EXECUTE "RefusalSummary" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalSummary, any values
EXPLAIN (:options) EXECUTE "RefusalSummary" (:run_id);

-- The users of a refused run with the most members.
-- Locks: ACCESS SHARE on conversation_members. Index: refusals_pkey, conversation_members_user_id. Rows: the members of the due users.
PREPARE "RefusalLargest" AS
SELECT f.user_id, m.members
FROM orphan_cleaner.refusals AS f
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS i
    WHERE i.user_id = f.user_id
) AS m
WHERE f.run_id = $1
    AND f.is_due
    AND m.members > 0
ORDER BY m.members DESC, f.user_id
LIMIT 10;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalLargest, these values
EXPLAIN (:options) EXECUTE "RefusalLargest" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalLargest, any values
EXPLAIN (:options) EXECUTE "RefusalLargest" (:run_id);

-- The rows, in each target, of the users whose rows an approval of a refused run would delete.
-- Locks: ACCESS SHARE on refusals and the targets. Index: refusals_pkey, inside those of the targets on the user.
-- Rows: those of the due users.
PREPARE "RefusalTargets" AS
SELECT r.target::text AS target, r.row_count::bigint AS row_count
FROM orphan_cleaner.target_rows(ARRAY(
    SELECT f.user_id
    FROM orphan_cleaner.refusals AS f
    WHERE f.run_id = $1 AND f.is_due
)) AS r;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalTargets, these values
EXPLAIN (:options) EXECUTE "RefusalTargets" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalTargets, any values
EXPLAIN (:options) EXECUTE "RefusalTargets" (:run_id);

-- The last whole month, UTC, the moment until which there is something to report, and whether a run began before that month ended.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at. Rows: one.
PREPARE "ReportRange" AS
SELECT
    ((date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month') AT TIME ZONE 'UTC')::timestamptz AS since,
    (date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::timestamptz AS until,
    coalesce(
        (SELECT min(r.started_at) FROM orphan_cleaner.runs AS r) < date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', false
    )::boolean AS has_runs,
    now()::timestamptz AS database_time;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportRange, these values
EXPLAIN (:options) EXECUTE "ReportRange";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportRange, any values
EXPLAIN (:options) EXECUTE "ReportRange";

-- What the runs that began in a span did, by UTC day of their beginning; the last row, without a day, is
-- the whole span. Percentiles come from the sum of the histograms, each by the upper bound of its
-- element: at most 19 % too high, never too low.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at. Rows: the runs of the span.
PREPARE "ReportDays" AS
WITH span AS (
    SELECT $1::timestamptz AS since, $2::timestamptz AS until
),
begun AS (
    SELECT
        (r.started_at AT TIME ZONE 'UTC')::date AS day,
        r.run_id, r.kind, r.state, r.users_checked, r.batch_calls, r.members_deleted, r.members_restored,
        r.owners_lost, r.conversations_emptied, r.members_held, r.members_kept_young, r.users_blocked, r.call_ms_buckets, r.call_ms_max
    FROM span AS s
    JOIN orphan_cleaner.runs AS r ON r.started_at >= s.since AND r.started_at < s.until
),
listed AS (
    -- A day without a run is worth a line, a day to come is not.
    SELECT d::date AS day
    FROM span AS s
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', s.since AT TIME ZONE 'UTC'),
        least(s.until - interval '1 microsecond', now()) AT TIME ZONE 'UTC',
        interval '1 day'
    ) AS d
    UNION ALL
    SELECT NULL
),
counted AS (
    SELECT
        b.day,
        count(*) FILTER (WHERE b.kind = 'clean') AS runs,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'refused') AS refused,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'incomplete') AS incomplete,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state IN ('failed', 'abandoned')) AS failed,
        sum(b.users_checked) FILTER (WHERE b.kind = 'clean') AS users_checked,
        sum(b.batch_calls) FILTER (WHERE b.kind = 'clean') AS batch_calls,
        -- Reverts delete, too: without them deleted and restored would not add up.
        sum(b.members_deleted) AS members_deleted,
        sum(b.members_restored) AS members_restored,
        sum(b.owners_lost) AS owners_lost,
        sum(b.conversations_emptied) AS conversations_emptied,
        max(b.call_ms_max) AS slowest_ms
    FROM begun AS b
    GROUP BY GROUPING SETS ((b.day), ())
),
kept AS (
    -- Not a sum: every run finds the same members again.
    SELECT DISTINCT ON (g.day) g.day, g.members_held, g.members_kept_young, g.users_blocked
    FROM (
        SELECT b.day, b.run_id, b.members_held, b.members_kept_young, b.users_blocked
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
        UNION ALL
        SELECT NULL, b.run_id, b.members_held, b.members_kept_young, b.users_blocked
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
    ) AS g
    ORDER BY g.day, g.run_id DESC
),
elements AS (
    SELECT b.day, e.element, sum(e.calls) AS calls
    FROM begun AS b
    CROSS JOIN LATERAL unnest(b.call_ms_buckets) WITH ORDINALITY AS e (calls, element)
    GROUP BY GROUPING SETS ((b.day, e.element), (e.element))
),
ranked AS (
    SELECT
        e.day,
        e.element,
        sum(e.calls) OVER (PARTITION BY e.day ORDER BY e.element) AS calls_up_to,
        sum(e.calls) OVER (PARTITION BY e.day) AS calls
    FROM elements AS e
),
percentiles AS (
    SELECT
        k.day,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.50 * k.calls) AS p50,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.99 * k.calls) AS p99
    FROM ranked AS k
    WHERE k.calls > 0
    GROUP BY k.day
)
SELECT
    coalesce(to_char(l.day, 'YYYY-MM-DD'), '')::text AS day,
    coalesce(c.runs, 0)::bigint AS runs,
    coalesce(c.refused, 0)::bigint AS refused,
    coalesce(c.incomplete, 0)::bigint AS incomplete,
    coalesce(c.failed, 0)::bigint AS failed,
    coalesce(c.users_checked, 0)::bigint AS users_checked,
    coalesce(c.batch_calls, 0)::bigint AS batch_calls,
    coalesce(c.members_deleted, 0)::bigint AS members_deleted,
    coalesce(c.members_restored, 0)::bigint AS members_restored,
    coalesce(c.owners_lost, 0)::bigint AS owners_lost,
    coalesce(c.conversations_emptied, 0)::bigint AS conversations_emptied,
    coalesce(k.members_held, 0)::bigint AS members_held,
    coalesce(k.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(k.users_blocked, 0)::bigint AS users_blocked,
    coalesce(c.slowest_ms, 0)::float8 AS slowest_ms,
    -- The last element has no bound of its own.
    coalesce(CASE WHEN p.p50 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p50 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p50_ms,
    coalesce(CASE WHEN p.p99 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p99 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p99_ms
FROM listed AS l
LEFT JOIN counted AS c ON c.day IS NOT DISTINCT FROM l.day
LEFT JOIN kept AS k ON k.day IS NOT DISTINCT FROM l.day
LEFT JOIN percentiles AS p ON p.day IS NOT DISTINCT FROM l.day
ORDER BY l.day NULLS LAST;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportDays, these values
EXPLAIN (:options) EXECUTE "ReportDays" (:since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportDays, any values
EXPLAIN (:options) EXECUTE "ReportDays" (:since, :until);

-- What the runs that began in a span, reverts among them, deleted of each target, or updated, and restored.
-- Locks: ACCESS SHARE on targets, runs, run_targets and restores. Index: runs_started_at, run_targets_pkey, restores_pkey.
-- Rows: the runs of the span, a row a target each, and the rows of its restores.
PREPARE "ReportTargets" AS
WITH begun AS MATERIALIZED (
    SELECT r.run_id, r.kind
    FROM orphan_cleaner.runs AS r
    WHERE r.started_at >= $1::timestamptz
        AND r.started_at < $2::timestamptz
)
SELECT
    t.name AS target,
    coalesce((
        SELECT sum(r.rows_deleted)
        FROM (
            -- In one piece, not run by run; while the clock was wrong others began between them.
            SELECT a.run_id, a.target, a.rows_deleted
            FROM orphan_cleaner.run_targets AS a
            WHERE a.run_id BETWEEN (SELECT min(b.run_id) FROM begun AS b) AND (SELECT max(b.run_id) FROM begun AS b)
            OFFSET 0
        ) AS r
        WHERE r.run_id IN (SELECT b.run_id FROM begun AS b)
            AND r.target = t.name
    ), 0)::bigint AS rows_deleted,
    (
        SELECT count(*) FILTER (WHERE o.target = t.name)
        FROM begun AS b
        CROSS JOIN LATERAL (
            SELECT l.target
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = b.run_id
                AND l.state IN ('restored', 'reverted')
            OFFSET 0
        ) AS o
        WHERE b.kind = 'restore'
    )::bigint AS rows_restored
FROM orphan_cleaner.targets_in_order AS t
ORDER BY t.n;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportTargets, these values
EXPLAIN (:options) EXECUTE "ReportTargets" (:since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportTargets, any values
EXPLAIN (:options) EXECUTE "ReportTargets" (:since, :until);

-- Which conversations the runs that began in a span took members from or restored them to, by the size
-- that each had before the span: members who had joined by then and are there, or have been deleted since.
-- Locks: ACCESS SHARE on conversation_members, runs, restores and the audit.
-- Index: conversation_members_audit_deleted_at (BRIN), conversation_members_pkey, restores_pkey.
-- Rows: the audit from the span on, and the members of the conversations touched.
PREPARE "ReportSizes" AS
WITH begun AS (
    SELECT r.run_id, r.kind
    FROM orphan_cleaner.runs AS r
    WHERE r.started_at >= $1::timestamptz
        AND r.started_at < $2::timestamptz
),
gone AS MATERIALIZED (
    -- Read once, whatever it is joined with.
    SELECT a.conversation_id, a.user_id, a.joined_at, a.run_id
    FROM public.conversation_members_audit AS a
    WHERE a.deleted_at >= $1::timestamptz
),
touched AS (
    SELECT t.conversation_id, sum(t.deleted) AS deleted, sum(t.restored) AS restored
    FROM (
        SELECT g.conversation_id, count(*) AS deleted, 0 AS restored
        FROM gone AS g
        WHERE g.run_id IN (SELECT b.run_id FROM begun AS b)
        GROUP BY g.conversation_id
        UNION ALL
        SELECT o.conversation_id, 0, count(*)
        FROM begun AS b
            -- Restore by restore, by the index.
        CROSS JOIN LATERAL (
            SELECT l.conversation_id, l.target
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = b.run_id
                AND l.state IN ('restored', 'reverted')
            OFFSET 0
        ) AS o
        WHERE b.kind = 'restore'
            AND o.target = 'conversation_members'
        GROUP BY o.conversation_id
    ) AS t
    GROUP BY t.conversation_id
),
sized AS (
    SELECT t.conversation_id, t.deleted, t.restored, count(DISTINCT b.user_id) AS size
    FROM touched AS t
    LEFT JOIN (
        SELECT m.conversation_id, m.user_id
        FROM touched AS n
            -- Conversation by conversation, by the index.
        CROSS JOIN LATERAL (
            SELECT i.conversation_id, i.user_id
            FROM public.conversation_members AS i
            WHERE i.conversation_id = n.conversation_id
                AND i.joined_at < $1::timestamptz
            OFFSET 0
        ) AS m
        UNION ALL
        SELECT g.conversation_id, g.user_id
        FROM touched AS n
        JOIN gone AS g ON g.conversation_id = n.conversation_id
        WHERE g.joined_at < $1::timestamptz
    ) AS b ON b.conversation_id = t.conversation_id
    GROUP BY t.conversation_id, t.deleted, t.restored
),
classes AS (
    -- 0: nobody had joined before the span.
    SELECT 1 AS ordinal, '0' AS name, 0 AS smallest, 0 AS largest
    UNION ALL SELECT 2, '1-2', 1, 2
    UNION ALL SELECT 3, '3-10', 3, 10
    UNION ALL SELECT 4, '11-100', 11, 100
    UNION ALL SELECT 5, '101-1000', 101, 1000
    UNION ALL SELECT 6, '>1000', 1001, 2147483647
)
SELECT
    c.name::text AS size,
    count(s.conversation_id)::bigint AS conversations,
    coalesce(sum(s.deleted), 0)::bigint AS members_deleted,
    coalesce(sum(s.restored), 0)::bigint AS members_restored
FROM classes AS c
LEFT JOIN sized AS s ON s.size BETWEEN c.smallest AND c.largest
GROUP BY c.ordinal, c.name
HAVING c.ordinal > 1 OR count(s.conversation_id) > 0
ORDER BY c.ordinal;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportSizes, these values
EXPLAIN (:options) EXECUTE "ReportSizes" (:since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportSizes, any values
EXPLAIN (:options) EXECUTE "ReportSizes" (:since, :until);

-- What a restore would do with the rows that were chosen, by the run that deleted them and the UTC day.
-- Locks: ACCESS SHARE on conversation_members, conversations and our tables.
-- Index: conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
PREPARE "RestorePreview" AS
WITH chosen AS (
    SELECT
        $1::bigint AS of_run,
        $2::uuid [] AS of_users,
        $3::uuid [] AS of_conversations,
        $4::timestamptz AS since,
        $5::timestamptz AS until,
        $6::text [] AS of_targets
)
SELECT
    p.target::text AS target,
    p.deleted_run::bigint AS deleted_run,
    to_char(p.backed_up_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')::text AS day,
    count(*) FILTER (WHERE p.verdict = 'restore') AS restore,
    count(DISTINCT p.user_id) FILTER (WHERE p.verdict = 'restore') AS users,
    count(DISTINCT p.conversation_id) FILTER (WHERE p.verdict = 'restore') AS conversations,
    count(*) FILTER (WHERE p.verdict = 'there') AS there,
    count(*) FILTER (WHERE p.verdict = 'there_differs') AS there_differs,
    count(*) FILTER (WHERE p.verdict = 'conversation_gone') AS conversation_gone,
    count(*) FILTER (WHERE p.verdict = 'left_since') AS left_since
FROM chosen AS w
CROSS JOIN LATERAL orphan_cleaner.restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until, w.of_targets) AS p
GROUP BY 1, 2, 3
ORDER BY 2, 3, 1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestorePreview, these values
EXPLAIN (:options) EXECUTE "RestorePreview" (:of_run, :of_users, :of_conversations, :since, :until, :of_targets);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestorePreview, any values
EXPLAIN (:options) EXECUTE "RestorePreview" (:of_run, :of_users, :of_conversations, :since, :until, :of_targets);

-- What a revert of a restore would be judged by if auth-service returned none of its users.
-- Locks: ACCESS SHARE on targets and restores. Index: restores_pkey. Rows: those of the restore.
PREPARE "RestoreFacts" AS
SELECT jsonb_build_object(
    'users_checked', (SELECT count(DISTINCT u.user_id) FROM orphan_cleaner.restores AS u WHERE u.run_id = $1 AND u.state = 'restored'),
    'users_new', 0, 'users_active', 0, 'candidates', 0, 'alive_missing', 0, 'dead_present', 0,
    'targets', jsonb_object_agg(t.name, jsonb_build_object('rows_due', coalesce(g.restored, 0)))
)::jsonb AS facts
FROM orphan_cleaner.targets AS t
LEFT JOIN (
    SELECT r.target, count(*) AS restored
    FROM orphan_cleaner.restores AS r
    WHERE r.run_id = $1 AND r.state = 'restored'
    GROUP BY r.target
) AS g ON g.target = t.name;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreFacts, these values
EXPLAIN (:options) EXECUTE "RestoreFacts" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreFacts, any values
EXPLAIN (:options) EXECUTE "RestoreFacts" (:run_id);

-- What became of the rows of a restore.
-- Locks: ACCESS SHARE on restores. Index: restores_pkey. Rows: those of the restore.
PREPARE "RestoreSummary" AS
SELECT
    r.kind,
    r.state,
    r.members_restored,
    r.members_deleted,
    coalesce((SELECT sum(t.rows_deleted) FROM orphan_cleaner.run_targets AS t WHERE t.run_id = r.run_id), 0)::bigint AS rows_deleted,
    g.planned::bigint AS planned,
    g.restored::bigint AS restored,
    g.users::bigint AS users,
    g.reverted::bigint AS reverted
FROM orphan_cleaner.runs AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE g.state = 'planned') AS planned,
        count(*) FILTER (WHERE g.state = 'restored') AS restored,
        count(DISTINCT g.user_id) FILTER (WHERE g.state = 'restored') AS users,
        count(*) FILTER (WHERE g.state = 'reverted') AS reverted
    FROM orphan_cleaner.restores AS g
    WHERE g.run_id = r.run_id
) AS g
WHERE r.run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreSummary, these values
EXPLAIN (:options) EXECUTE "RestoreSummary" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreSummary, any values
EXPLAIN (:options) EXECUTE "RestoreSummary" (:run_id);

-- How many members of a restore's list could still be restored: the member is not there, and its conversation is.
-- Locks: ACCESS SHARE on conversation_members and conversations.
-- Index: restores_pkey, conversation_members_pkey, conversations_pkey. Rows: those of the restore.
PREPARE "RestoreLeft" AS
SELECT count(*) AS members
FROM orphan_cleaner.restores AS r
    -- One lookup a row: only few are left of a list.
CROSS JOIN LATERAL (
    SELECT c.id
    FROM public.conversations AS c
    WHERE c.id = r.conversation_id
    LIMIT 1
) AS c
LEFT JOIN LATERAL (
    SELECT m.user_id
    FROM public.conversation_members AS m
    WHERE m.conversation_id = r.conversation_id AND m.user_id = r.user_id
    LIMIT 1
) AS m ON true
WHERE r.run_id = $1
    AND r.state = 'planned'
    AND m.user_id IS NULL
    -- Who joined again and left since stays away.
    AND NOT EXISTS (
        SELECT
        FROM public.conversation_members_audit AS a
        JOIN orphan_cleaner.runs AS o ON o.run_id = r.run_id
        WHERE a.run_id IS NULL
            AND a.deleted_at >= o.started_at - interval '1 minute'
            AND a.deleted_at > r.backed_up_at
            AND a.user_id = r.user_id
            AND a.conversation_id = r.conversation_id
    );
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreLeft, these values
EXPLAIN (:options) EXECUTE "RestoreLeft" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreLeft, any values
EXPLAIN (:options) EXECUTE "RestoreLeft" (:run_id);

-- Records which rows a restore brings back; returns what becomes of all that were chosen, by verdict.
-- Locks: ROW EXCLUSIVE on restores; ACCESS SHARE on conversation_members and conversations.
-- Index: runs_pkey, conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
PREPARE "RestoreStore" AS
SELECT s.verdict::text AS verdict, s.members::bigint AS members, s.users::bigint AS users
FROM orphan_cleaner.restore_store(
    $1::bigint, $2::uuid, $3::bigint, $4::uuid [],
    $5::uuid [], $6::timestamptz, $7::timestamptz,
    $8::text []
) AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreStore, these values
EXPLAIN (:options) EXECUTE "RestoreStore" (:run_id, :token, :of_run, :of_users, :of_conversations, :since, :until, :of_targets);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreStore, any values
EXPLAIN (:options) EXECUTE "RestoreStore" (:run_id, :token, :of_run, :of_users, :of_conversations, :since, :until, :of_targets);

-- Where the backup rows of a restore are: the chunks of so many pages that hold one, by UTC day, with their users.
-- Locks: ACCESS SHARE on the backup. Index: restores_pkey. Rows: the backups from the oldest row of the restore on, read once.
PREPARE "RestoreChunks" AS
SELECT c.day::text AS day, c.first_page::bigint AS first_page, c.members::bigint AS members, c.user_ids::uuid [] AS user_ids, c.target::text AS target
FROM orphan_cleaner.restore_chunks($1::bigint, $2::text, $3::integer) AS c;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreChunks, these values
EXPLAIN (:options) EXECUTE "RestoreChunks" (:run_id, :state, :pages);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreChunks, any values
EXPLAIN (:options) EXECUTE "RestoreChunks" (:run_id, :state, :pages);

-- Restores the planned rows of these users, of a target, on some pages of its backup of a day; returns how many.
-- Locks: ROW EXCLUSIVE on conversation_members and our tables; the conversations FOR KEY SHARE, by their foreign key.
-- Index: restores_pkey; a TID range of the backup. Rows: those on the pages, some thousand at most.
PREPARE "RestoreChunk" AS
SELECT orphan_cleaner.restore_chunk(
    $1::bigint, $2::uuid, ($3::text)::date, $4::bigint, $5::integer, $6::uuid [], $7::interval, $8::text
)::bigint AS restored;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreChunk, these values
EXPLAIN (:options) EXECUTE "RestoreChunk" (:run_id, :token, :day, :first_page, :pages, :user_ids, :hold, :target);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreChunk, any values
EXPLAIN (:options) EXECUTE "RestoreChunk" (:run_id, :token, :day, :first_page, :pages, :user_ids, :hold, :target);

-- Deletes rows of a restore once more: unchanged since, on no other hold, of users who are still missing.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows deleted, and on our tables.
-- Index: restores_pkey, conversation_members_pkey or conversation_members_user_id; a TID range of the backup. Rows: those on the pages.
PREPARE "RevertChunk" AS
SELECT orphan_cleaner.revert_chunk(
    $1::bigint, $2::uuid, $3::bigint, ($4::text)::date, $5::bigint, $6::integer,
    $7::uuid [], ($8::text)::xid8, $9::text
)::bigint AS deleted;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RevertChunk, these values
EXPLAIN (:options) EXECUTE "RevertChunk" (:run_id, :token, :reverted_run, :day, :first_page, :pages, :user_ids, :checked_from, :target);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RevertChunk, any values
EXPLAIN (:options) EXECUTE "RevertChunk" (:run_id, :token, :reverted_run, :day, :first_page, :pages, :user_ids, :checked_from, :target);

-- Judges a revert: names the breaker that refuses it, or admits the missing users to deletion.
-- Locks: ACCESS SHARE on conversation_members; ROW EXCLUSIVE on sightings. Index: restores_pkey, conversation_members_user_id.
-- Rows: those of the restore; all members, counted.
PREPARE "RevertJudge" AS
SELECT
    coalesce(j.breaker, '')::text AS breaker,
    coalesce(j.message, '')::text AS message
FROM orphan_cleaner.revert_judge($1::bigint, $2::uuid, $3::bigint, $4::uuid [], $5::jsonb) AS j;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RevertJudge, these values
EXPLAIN (:options) EXECUTE "RevertJudge" (:run_id, :token, :reverted_run, :missing, :report);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RevertJudge, any values
EXPLAIN (:options) EXECUTE "RevertJudge" (:run_id, :token, :reverted_run, :missing, :report);

-- Opens a run, and gives up one whose lease ended. Fails with OC003 while another is open and with OC002 while runs are
-- paused; with an interval (every) there is no row unless a run is due.
-- Locks: SHARE ROW EXCLUSIVE on runs, 3 s at most. Index: runs_one_open. Rows: one or two.
PREPARE "RunBegin" AS
SELECT
    r.run_id::bigint AS run_id,
    r.started_at::timestamptz AS started_at,
    r.settings::jsonb AS settings,
    coalesce(r.approved_run, 0)::bigint AS approved_run
FROM orphan_cleaner.run_begin(
    $1::uuid, $2::text, $3::text, $4::jsonb, $5::interval, $6::text, $7::text,
    $8::interval, $9::boolean
) AS r;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunBegin, these values
EXPLAIN (:options) EXECUTE "RunBegin" (:token, :kind, :phase, :settings, :lease, :host, :version, :every, :is_revert);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunBegin, any values
EXPLAIN (:options) EXECUTE "RunBegin" (:token, :kind, :phase, :settings, :lease, :host, :version, :every, :is_revert);

-- Keeps a run open; returns whether runs are paused. Fails with OC001 when it is no longer open.
-- Locks: the run's row. Index: runs_one_open or runs_pkey. Rows: one.
PREPARE "RunHeartbeat" AS
SELECT orphan_cleaner.run_heartbeat($1::bigint, $2::uuid, $3::text, $4::text)::boolean AS paused;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunHeartbeat, these values
EXPLAIN (:options) EXECUTE "RunHeartbeat" (:run_id, :token, :kind, :phase);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunHeartbeat, any values
EXPLAIN (:options) EXECUTE "RunHeartbeat" (:run_id, :token, :kind, :phase);

-- Stages users as missing, with what they mean for the run, and as unknown; returns the rows due among them.
-- Locks: ACCESS SHARE on the targets, ROW EXCLUSIVE on sightings.
-- Index: conversation_members_user_id, candidates_pkey. Rows: the users given and their rows.
PREPARE "RunStage" AS
SELECT orphan_cleaner.run_stage($1::bigint, $2::uuid, $3::uuid [], $4::uuid [])::bigint AS rows_due;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunStage, these values
EXPLAIN (:options) EXECUTE "RunStage" (:run_id, :token, :missing, :unknown);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunStage, any values
EXPLAIN (:options) EXECUTE "RunStage" (:run_id, :token, :missing, :unknown);

-- Judges the run: names the breaker that refuses it, or writes the ledger.
-- Locks: ROW EXCLUSIVE on the ledger; ACCESS SHARE on conversation_members. Index: none: staging and the ledger are read whole.
-- Rows: all missing users; all members, counted, where they are few or many are due.
PREPARE "RunJudge" AS
SELECT
    coalesce(j.breaker, '')::text AS breaker,
    coalesce(j.message, '')::text AS message
FROM orphan_cleaner.run_judge($1::bigint, $2::uuid, $3::jsonb) AS j;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunJudge, these values
EXPLAIN (:options) EXECUTE "RunJudge" (:run_id, :token, :report);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunJudge, any values
EXPLAIN (:options) EXECUTE "RunJudge" (:run_id, :token, :report);

-- What the breakers say of these settings and facts: the judgement of a dry run, of a fleet by the sums of its history, and
-- the figures for a page.
-- Locks: ACCESS SHARE on hours, runs and conversation_members. Index: runs_heartbeat_at; hours is read whole.
-- Rows: an hour each of the audit's window; all members, counted, where they are few or many are due.
PREPARE "RunBreakers" AS
SELECT
    b.breaker::text AS breaker,
    coalesce(b.figure, 0)::float8 AS figure,
    coalesce(b.limit_value, 0)::float8 AS limit_value,
    b.is_tripped::boolean AS is_tripped,
    b.message::text AS message
FROM orphan_cleaner.breakers($1::jsonb, $2::jsonb, $3::jsonb) AS b;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunBreakers, these values
EXPLAIN (:options) EXECUTE "RunBreakers" (:settings, :facts, :history);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunBreakers, any values
EXPLAIN (:options) EXECUTE "RunBreakers" (:settings, :facts, :history);

-- What these missing users mean for a run, summed up; changes nothing: the staging of a dry run. Pinned limits are
-- applied, as run_begin applies them.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id, candidates_pkey. Rows: the users given and their members.
PREPARE "RunAssess" AS
WITH assessed AS MATERIALIZED (
    SELECT a.user_id, a.is_new, a.is_approved, a.is_restarted, a.is_active, a.is_due, a.rows_due, a.rows_young, a.rows_held
    FROM orphan_cleaner.assess(
        $1::uuid [],
        greatest($2::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'retention')),
        least($3::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'max-gap')),
        $4::bigint
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
        now() - greatest($2::interval, (SELECT make_interval(secs => l.value) FROM orphan_cleaner.limits AS l WHERE l.name = 'retention'))
    )::bigint [] AS at_stake
FROM assessed AS a;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunAssess, these values
EXPLAIN (:options) EXECUTE "RunAssess" (:user_ids, :retention, :max_gap, :approved_run);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunAssess, any values
EXPLAIN (:options) EXECUTE "RunAssess" (:user_ids, :retention, :max_gap, :approved_run);

-- The next due users of the run behind one, as staged, with the rows that the sweep may delete, by target: those who are blocked, or
-- the others.
-- Locks: ACCESS SHARE on sightings and candidates. Index: candidates_blocked; none else is needed: staging is read in order,
-- or whole. Rows: as asked, and all who are blocked.
PREPARE "RunDuePage" AS
SELECT s.user_id, coalesce(s.rows_due, '{}')::bigint [] AS rows_due, $1::boolean AS is_blocked
FROM orphan_cleaner.sightings AS s
WHERE s.run_id = $2
    AND s.user_id > $3
    AND s.is_due
    AND (s.user_id IN (SELECT c.user_id FROM orphan_cleaner.candidates AS c WHERE c.blocked_since IS NOT NULL)) = $1::boolean
ORDER BY s.user_id
LIMIT $4;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunDuePage, these values
EXPLAIN (:options) EXECUTE "RunDuePage" (:is_blocked, :run_id, :after, :max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunDuePage, any values
EXPLAIN (:options) EXECUTE "RunDuePage" (:is_blocked, :run_id, :after, :max_users);

-- Deletes one chunk: rows of due users who were just again missing, unchanged since checked_from.
-- Locks: ROW EXCLUSIVE on the targets; SHARE on holds and pauses; 2 s at most for each, half a second for a row. Last, where there
-- are counts, SHARE UPDATE EXCLUSIVE on effects and the rows that count; 200 ms at most for each.
-- Index: conversation_members_user_id, candidates_pkey. Rows: max_rows.
PREPARE "RunSweepChunk" AS
SELECT c.rows_deleted::bigint [] AS rows_deleted, c.is_whole::boolean AS is_whole
FROM orphan_cleaner.sweep_chunk(
    $1::bigint, $2::uuid, $3::uuid [], ($4::text)::xid8, $5::bigint
) AS c;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunSweepChunk, these values
EXPLAIN (:options) EXECUTE "RunSweepChunk" (:run_id, :token, :user_ids, :checked_from, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunSweepChunk, any values
EXPLAIN (:options) EXECUTE "RunSweepChunk" (:run_id, :token, :user_ids, :checked_from, :max_rows);

-- Takes users out of the ledger who are alive after all.
-- Locks: ROW EXCLUSIVE on the ledger. Index: candidates_pkey. Rows: the users given.
PREPARE "RunSweepReturned" AS
SELECT orphan_cleaner.sweep_returned($1::bigint, $2::uuid, $3::uuid []);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunSweepReturned, these values
EXPLAIN (:options) EXECUTE "RunSweepReturned" (:run_id, :token, :user_ids);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunSweepReturned, any values
EXPLAIN (:options) EXECUTE "RunSweepReturned" (:run_id, :token, :user_ids);

-- Ends a run and proves it; the state is failed where the proof says so.
-- Locks: the run's row; ACCESS SHARE on audit and backup.
-- Index: conversation_members_audit_deleted_at (BRIN). Rows: what was deleted since the run began.
PREPARE "RunFinish" AS
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
    $1::bigint, $2::uuid, $3::text, $4::text, $5::text, $6::jsonb
) AS r;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunFinish, these values
EXPLAIN (:options) EXECUTE "RunFinish" (:run_id, :token, :state, :breaker, :error, :counts);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunFinish, any values
EXPLAIN (:options) EXECUTE "RunFinish" (:run_id, :token, :state, :breaker, :error, :counts);

-- What a run did with each target, in the order of the sweep; no row for a run that was not judged.
-- Locks: ACCESS SHARE on run_targets and targets. Index: run_targets_pkey. Rows: the targets.
PREPARE "RunTargets" AS
SELECT r.target, r.rows_due, r.rows_deleted, r.rows_kept_young, r.rows_held, r.rows_changed, r.rows_blocked
FROM orphan_cleaner.run_targets AS r
JOIN orphan_cleaner.targets_in_order AS t ON t.name = r.target
WHERE r.run_id = $1
ORDER BY t.n;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunTargets, these values
EXPLAIN (:options) EXECUTE "RunTargets" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunTargets, any values
EXPLAIN (:options) EXECUTE "RunTargets" (:run_id);

-- When the next run is due, as run_begin decides it: an interval after the last attempt was, of whichever runner,
-- unless that attempt was given up. Seconds; 0 or less: now.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards; runs_one_open. Rows: a few.
PREPARE "RunSchedule" AS
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
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + $1::interval AS next_at
    FROM orphan_cleaner.runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND NOT (a.state = 'running' AND a.heartbeat_at + a.lease < now())
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
LEFT JOIN orphan_cleaner.runs AS o ON o.state = 'running';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunSchedule, these values
EXPLAIN (:options) EXECUTE "RunSchedule" (:every);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunSchedule, any values
EXPLAIN (:options) EXECUTE "RunSchedule" (:every);

-- The last runs, newest first.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards. Rows: as asked.
PREPARE "RunRecent" AS
SELECT r.run_id, r.kind, r.state, r.phase, r.started_at, r.finished_at, r.host, r.users_checked, r.users_missing,
    r.users_unknown, r.users_due, r.users_blocked, r.members_due, r.members_deleted, r.members_restored, r.members_kept_young, r.members_held,
    r.conversations, r.owners_lost, r.owners_kept, r.conversations_emptied, r.batch_calls, r.breaker, r.error,
    extract(EPOCH FROM coalesce(r.finished_at, now()) - r.started_at)::float8 AS seconds,
    -- Of a restore: it deleted again what another one restored.
    (r.kind = 'restore' AND coalesce(r.settings #>> '{flags,revert}', '0') <> '0')::boolean AS is_revert
FROM orphan_cleaner.runs AS r
ORDER BY r.run_id DESC
LIMIT $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunRecent, these values
EXPLAIN (:options) EXECUTE "RunRecent" (:max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunRecent, any values
EXPLAIN (:options) EXECUTE "RunRecent" (:max_rows);

-- What runs did in each of so many spans of one length, UTC, of which the last is under way: users as the last run that
-- began in it found them, and by the sums that every finished run has on it what all of them did.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at, backwards. Rows: a few for each span, however many runs there were.
PREPARE "RunSpans" AS
WITH asked AS (
    SELECT $1::interval AS span, $2::integer AS spans
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
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunSpans, these values
EXPLAIN (:options) EXECUTE "RunSpans" (:span, :spans);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunSpans, any values
EXPLAIN (:options) EXECUTE "RunSpans" (:span, :spans);

-- All that is known of one run, but its token.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey. Rows: one.
PREPARE "RunOne" AS
SELECT r.run_id, r.kind, r.state, r.phase, r.started_at, r.heartbeat_at, r.finished_at, r.scheduled_for, r.judged_at, r.host, r.version,
    r.settings, r.approved_run, r.users_checked, r.users_missing, r.users_unknown, r.users_new, r.users_returned, r.users_restarted,
    r.users_due, r.users_blocked, r.candidates, r.members_total, r.members_due, r.members_deleted, r.members_restored, r.members_kept_young,
    r.members_held, r.members_changed, r.members_blocked, r.conversations, r.batch_calls, r.call_ms_max, r.breaker, r.error,
    now()::timestamptz AS database_time
FROM orphan_cleaner.runs AS r
WHERE r.run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunOne, these values
EXPLAIN (:options) EXECUTE "RunOne" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunOne, any values
EXPLAIN (:options) EXECUTE "RunOne" (:run_id);

-- The conversations that lost the most members to a run, by the audit of the time in which it was open.
-- Locks: ACCESS SHARE on the audit. Index: conversation_members_audit_deleted_at (BRIN). Rows: what was deleted in that time.
PREPARE "RunConversations" AS
SELECT a.conversation_id, count(*) AS members
FROM public.conversation_members_audit AS a
WHERE a.deleted_at >= $1::timestamptz
    AND a.deleted_at <= $2::timestamptz
    AND a.run_id = $3::bigint
GROUP BY a.conversation_id
ORDER BY count(*) DESC, a.conversation_id
LIMIT $4;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunConversations, these values
EXPLAIN (:options) EXECUTE "RunConversations" (:since, :until, :run_id, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunConversations, any values
EXPLAIN (:options) EXECUTE "RunConversations" (:since, :until, :run_id, :max_rows);

-- The restores that brought back rows which a run deleted, newest first.
-- Locks: ACCESS SHARE on restores. Index: restores_pkey. Rows: the rows of all restores since.
PREPARE "RunRestores" AS
SELECT
    g.run_id,
    count(*) FILTER (WHERE g.state = 'restored') AS restored,
    count(*) FILTER (WHERE g.state = 'reverted') AS reverted
FROM orphan_cleaner.restores AS g
WHERE g.run_id > $1::bigint
    AND g.deleted_run = $1::bigint
    AND g.state <> 'planned'
GROUP BY g.run_id
ORDER BY g.run_id DESC
LIMIT $2;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunRestores, these values
EXPLAIN (:options) EXECUTE "RunRestores" (:run_id, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunRestores, any values
EXPLAIN (:options) EXECUTE "RunRestores" (:run_id, :max_rows);

-- Opens every transaction: bounds its waiting, and sets what it depends on, whatever role, database or a pooled
-- session say. All of it is local to the transaction, so that a pooler may hand the session on; only migrate, which has
-- a session of its own, sets it for the session, where NO TRANSACTION migrations need it.
-- The role is left as it is: ALTER ROLE … SET role is how a login with NOINHERIT is made one of ours.
-- No JIT: compiling costs more than any of our statements runs. Work_mem: a chunk fits into 16 MB, and needs no
-- temporary file that a temp_file_limit could refuse.
-- Every name is qualified, types but for keywords too: until it has run, the search_path is somebody else's.
-- Locks: none.
PREPARE "SettingsApply" AS
SELECT
    pg_catalog.set_config('statement_timeout', $1::varchar, $2::boolean),
    pg_catalog.set_config('lock_timeout', $3::varchar, $2::boolean),
    pg_catalog.set_config('idle_in_transaction_session_timeout', $4::varchar, $2::boolean),
    -- Of PostgreSQL 17 and newer.
    CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL THEN pg_catalog.set_config('transaction_timeout', '0', $2::boolean) END,
    -- Of the minor versions since August 2024: with 'view', ours could not be read.
    CASE WHEN pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL THEN pg_catalog.set_config('restrict_nonsystem_relation_kind', '', $2::boolean) END,
    pg_catalog.set_config('default_transaction_read_only', 'off', $2::boolean),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', $2::boolean),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', $2::boolean),
    pg_catalog.set_config('row_security', 'off', $2::boolean),
    pg_catalog.set_config('synchronous_commit', CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, $2::boolean),
    pg_catalog.set_config('client_encoding', 'UTF8', $2::boolean),
    pg_catalog.set_config('standard_conforming_strings', 'on', $2::boolean),
    pg_catalog.set_config('TimeZone', 'UTC', $2::boolean),
    pg_catalog.set_config('DateStyle', 'ISO, MDY', $2::boolean),
    pg_catalog.set_config('IntervalStyle', 'postgres', $2::boolean),
    -- Rows are compared as text, which must not round.
    pg_catalog.set_config('extra_float_digits', '1', $2::boolean),
    pg_catalog.set_config('bytea_output', 'hex', $2::boolean),
    pg_catalog.set_config('plan_cache_mode', 'auto', $2::boolean),
    pg_catalog.set_config('work_mem', greatest(pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) OPERATOR(pg_catalog./) 1024, 16384)::varchar, $2::boolean),
    -- An index of a large table is sorted in temporary files. Only who may, can.
    CASE WHEN NOT $2::boolean AND pg_catalog.has_parameter_privilege('temp_file_limit', 'SET') THEN pg_catalog.set_config('temp_file_limit', '-1', false) END,
    pg_catalog.set_config('jit', 'off', $2::boolean);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsApply, these values
EXPLAIN (:options) EXECUTE "SettingsApply" (:statement_timeout, :is_local, :lock_timeout, :idle_timeout);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsApply, any values
EXPLAIN (:options) EXECUTE "SettingsApply" (:statement_timeout, :is_local, :lock_timeout, :idle_timeout);

-- The oldest transaction that runs right now: a row version that is older was not changed since. Taken before users
-- are checked a second time.
-- Locks: none.
PREPARE "SnapshotOldest" AS
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS checked_from;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SnapshotOldest, these values
EXPLAIN (:options) EXECUTE "SnapshotOldest";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SnapshotOldest, any values
EXPLAIN (:options) EXECUTE "SnapshotOldest";

-- By how many seconds the standby that lags most replays behind; 0 without one. A role without pg_monitor sees none.
-- Locks: none.
PREPARE "ReplicationLag" AS
SELECT coalesce(max(extract(EPOCH FROM s.replay_lag)), 0)::float8 AS seconds
FROM pg_catalog.pg_stat_replication AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReplicationLag, these values
EXPLAIN (:options) EXECUTE "ReplicationLag";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReplicationLag, any values
EXPLAIN (:options) EXECUTE "ReplicationLag";

-- Opens every transaction on the database that is asked for users, where that is the source of truth: bounds it, and has
-- a row-level security policy raise an error, where it would hide users. All of it is local to the transaction.
-- Names are qualified: search_path is the other database's, and may find a function named like a built-in first.
-- Says by how many seconds what is read may be out of date: 0 on a primary, infinity where nobody knows.
-- Locks: none.
PREPARE "SourceBegin" AS
SELECT
    pg_catalog.set_config('statement_timeout', $1::text, true),
    pg_catalog.set_config('lock_timeout', $1::text, true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', $1::text, true),
    pg_catalog.set_config('row_security', 'off', true),
    pg_catalog.set_config('jit', 'off', true),
    (CASE
        WHEN pg_catalog.pg_is_in_recovery()
            -- Two bounds, each of them safe. Whatever was committed up to the last replayed commit is here; after an
            -- idle hour that is an hour ago.
            THEN coalesce(least(
                pg_catalog.abs(extract(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())),
                -- All that the primary had when it was last heard of is here, too. Only a receiver that is
                -- streaming has heard of it, and only pg_read_all_stats shows that. The view over this function would
                -- take 0.2 ms to plan, for each batch.
                (
                    SELECT extract(EPOCH FROM pg_catalog.clock_timestamp() - w.last_msg_receipt_time)
                    FROM pg_catalog.pg_stat_get_wal_receiver() AS w
                    WHERE w.status = 'streaming'
                        AND pg_catalog.pg_last_wal_replay_lsn() >= w.latest_end_lsn
                        AND pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn()
                )
            ), 'infinity')
        ELSE 0
    END)::float8 AS behind;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SourceBegin, these values
EXPLAIN (:options) EXECUTE "SourceBegin" (:statement_timeout);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SourceBegin, any values
EXPLAIN (:options) EXECUTE "SourceBegin" (:statement_timeout);

-- Has EXPLAIN show an index wherever one can be used: a table of some pages is read from end to end even so.
-- Locks: none.
PREPARE "SourcePrefersIndex" AS
SELECT pg_catalog.set_config('enable_seqscan', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SourcePrefersIndex, these values
EXPLAIN (:options) EXECUTE "SourcePrefersIndex";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SourcePrefersIndex, any values
EXPLAIN (:options) EXECUTE "SourcePrefersIndex";

-- What is wrong with the plan of the query for users, as EXPLAIN (VERBOSE, FORMAT JSON) shows it: whether it writes or
-- locks rows, leaves out rows that it has found, which volatile functions it calls, and which large tables it reads from end to end.
-- Locks: none beyond the catalog.
PREPARE "SourcePlan" AS
WITH RECURSIVE rows_come_from (node) AS (
    -- Not what is looked up for each row, as by a lateral join, or once, as (SELECT … LIMIT 1): a LIMIT there may be right.
    SELECT jsonb_path_query($1::jsonb, 'strict $[*]."Plan"')
    UNION ALL
    SELECT child.node
    FROM rows_come_from AS r, jsonb_array_elements(r.node -> 'Plans') AS child (node)
    WHERE CASE child.node ->> 'Parent Relationship'
        WHEN 'SubPlan' THEN false
        WHEN 'InitPlan' THEN child.node ->> 'Subplan Name' LIKE 'CTE %'
        WHEN 'Inner' THEN r.node ->> 'Node Type' <> 'Nested Loop'
        ELSE true
    END
)

SELECT
    jsonb_path_exists($1::jsonb, 'strict $.** ? (@."Node Type" == "ModifyTable" || @."Node Type" == "LockRows")')::boolean AS writes,
    (
        EXISTS (SELECT FROM rows_come_from AS r WHERE r.node ->> 'Node Type' = 'Limit')
        OR jsonb_path_exists($1::jsonb, 'strict $.** ? (@."Node Type" == "Sample Scan")')
    )::boolean AS cuts,
    coalesce((
        SELECT string_agg(DISTINCT called.name, ', ')
        FROM jsonb_path_query($1::jsonb, 'strict $.** ? (@.type() == "string")') AS texts (text),
            -- Names before a bracket, outside of literals.
            regexp_matches(regexp_replace(texts.text #>> '{}', '''[^'']*''', '', 'g'), '([[:alnum:]_."]+)\(', 'g') AS found (names),
            LATERAL (SELECT found.names[1]) AS called (name)
        WHERE EXISTS (
            SELECT
            FROM pg_catalog.pg_proc AS p
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE called.name IN (quote_ident(p.proname), quote_ident(n.nspname) || '.' || quote_ident(p.proname))
                AND p.provolatile = 'v'
                AND p.prokind = 'f'
        )
    ), '')::text AS volatile_functions,
    coalesce((
        SELECT string_agg(DISTINCT format('%s (%s rows)', c.oid::regclass, large.estimate::bigint), ', ')
        FROM jsonb_path_query(
            $1::jsonb,
            -- Of an index, too: where no condition bounds it, all of it is read.
            'strict $.** ? (@."Node Type" == "Seq Scan" || (@."Node Type" == "Index Only Scan" || @."Node Type" == "Index Scan") && !exists(@."Index Cond"))'
        ) AS nodes (node)
        JOIN pg_catalog.pg_class AS c
            ON c.oid = to_regclass(format('%I.%I', nodes.node ->> 'Schema', nodes.node ->> 'Relation Name'))
        -- As the planner does it: as many rows as when it was analyzed, in the pages of now; of 100 bytes where it never was.
        CROSS JOIN LATERAL (
            SELECT pg_relation_size(c.oid) / CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN current_setting('block_size')::float8 * c.relpages / c.reltuples ELSE 100 END AS estimate
        ) AS large
        WHERE large.estimate >= 10000
    ), '')::text AS scanned;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SourcePlan, these values
EXPLAIN (:options) EXECUTE "SourcePlan" (:plan);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SourcePlan, any values
EXPLAIN (:options) EXECUTE "SourcePlan" (:plan);

-- Which database this is, the same on its standbys.
-- Locks: none.
PREPARE "SourceIdentity" AS
SELECT (s.system_identifier::text || '/' || current_database())::text AS identity
FROM pg_catalog.pg_control_system() AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SourceIdentity, these values
EXPLAIN (:options) EXECUTE "SourceIdentity";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SourceIdentity, any values
EXPLAIN (:options) EXECUTE "SourceIdentity";

-- Why a table cannot be a target, or an empty text; and each column with its type, as arrays.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: one for each column.
PREPARE "TargetTable" AS
SELECT
    coalesce((
        SELECT CASE
            WHEN n.nspname = 'orphan_cleaner' THEN 'it is a record of runs'
            WHEN c.relpersistence = 't' THEN 'it is temporary'
            WHEN c.relispartition THEN 'it is a partition'
            WHEN c.relkind = 'p' THEN 'it is partitioned'
            WHEN c.relkind = 'f' THEN 'it is a foreign table'
            WHEN c.relkind IN ('v', 'm') THEN 'it is a view'
            WHEN c.relkind <> 'r' THEN 'it is no table'
            WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) THEN 'it inherits or is inherited from'
            ELSE ''
        END
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1::text AND c.relname = $2::text
    ), 'there is no such table')::text AS unfit,
    coalesce(columns.names, '{}')::text [] AS column_names,
    coalesce(columns.types, '{}')::text [] AS column_types,
    coalesce(columns.nullable, '{}')::text [] AS nullable,
    coalesce(columns.generated, '{}')::text [] AS generated
FROM (
    SELECT
        array_agg(a.attname::text ORDER BY a.attnum) AS names,
        array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
        array_agg(a.attname::text) FILTER (WHERE NOT a.attnotnull) AS nullable,
        array_agg(a.attname::text) FILTER (WHERE a.attgenerated <> '') AS generated
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
) AS columns;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetTable, these values
EXPLAIN (:options) EXECUTE "TargetTable" (:table_schema, :table_name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetTable, any values
EXPLAIN (:options) EXECUTE "TargetTable" (:table_schema, :table_name);

-- Whether exactly these columns are a primary key or have a unique index that is valid, not partial and not deferrable.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the indexes of the table.
PREPARE "TargetKey" AS
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = $2::text
        AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
        AND (
            -- An expression has no column, so that the array is another one.
            SELECT array_agg(a.attname::text ORDER BY a.attname)
            FROM unnest(i.indkey::smallint []) WITH ORDINALITY AS k (attnum, place)
            LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts
        ) = (SELECT array_agg(k ORDER BY k COLLATE "C") FROM unnest($3::text []) AS k)
)::boolean AS is_unique;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetKey, these values
EXPLAIN (:options) EXECUTE "TargetKey" (:table_schema, :table_name, :key_columns);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetKey, any values
EXPLAIN (:options) EXECUTE "TargetKey" (:table_schema, :table_name, :key_columns);

-- The tables whose rows a delete from this table deletes, too, by a foreign key.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the foreign keys onto the table.
PREPARE "TargetCascades" AS
SELECT f.conname::text AS constraint_name, n.nspname::text AS table_schema, c.relname::text AS table_name
FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS onto ON onto.oid = f.confrelid
JOIN pg_catalog.pg_namespace AS onto_schema ON onto_schema.oid = onto.relnamespace
WHERE f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0
    AND onto_schema.nspname = $1::text AND onto.relname = $2::text
ORDER BY n.nspname, c.relname, f.conname;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetCascades, these values
EXPLAIN (:options) EXECUTE "TargetCascades" (:table_schema, :table_name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetCascades, any values
EXPLAIN (:options) EXECUTE "TargetCascades" (:table_schema, :table_name);

-- Statements of a target, for the server to parse: it quotes the names, the caller vouches for the expressions. One
-- that selects by the condition, one that sets each column, and one that sets them all in a row that the condition
-- finds and returns the condition, now or in 100 years: it is to be rolled back.
-- Locks: none.
PREPARE "TargetStatements" AS
SELECT
    format('SELECT FROM %I.%I WHERE (%s)', $1::text, $2::text, $3::text)::text AS selecting,
    coalesce(s.each, '{}')::text [] AS setting,
    format(
        'UPDATE %1$I.%2$I SET %3$s WHERE ctid = (SELECT ctid FROM %1$I.%2$I WHERE (%4$s) LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING (%4$s) IS TRUE OR (%5$s) IS TRUE',
        $1::text, $2::text, s.together, $3::text,
        regexp_replace($3::text, '\mnow\s*\(\s*\)|\m(current_timestamp|current_date|localtimestamp)\M', '(\& + make_interval(100))', 'gi')
    )::text AS proving
FROM (
    SELECT
        array_agg(format('UPDATE %I.%I SET %I = (%s)', $1::text, $2::text, e.name, e.expression) ORDER BY e.place) AS each,
        string_agg(format('%I = (%s)', e.name, e.expression), ', ' ORDER BY e.place) AS together
    FROM (
        SELECT place, ($4::text [])[place] AS name, ($5::text [])[place] AS expression
        FROM generate_subscripts($4::text [], 1) AS place
    ) AS e
) AS s;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetStatements, these values
EXPLAIN (:options) EXECUTE "TargetStatements" (:table_schema, :table_name, :condition, :set_columns, :set_expressions);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetStatements, any values
EXPLAIN (:options) EXECUTE "TargetStatements" (:table_schema, :table_name, :condition, :set_columns, :set_expressions);

-- Columns that may hold ids of users, by type, name or foreign key onto the shadow table, but for our own tables: each
-- with the statement that takes a sample of it (how many values, how many of them look like an id, how many are ids of
-- members or of shadow users), or with the grants that it lacks; and with what a target of the table would be: no key, where it can be none.
-- Views, foreign tables, partitions, and columns of json and of other types are left out.
-- A sample reads about 100 pages, spread over the table, and 1,000 values at most.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the columns of the database.
PREPARE "TargetReferences" AS
WITH known AS (
    SELECT
        string_agg(format('EXISTS (SELECT FROM public.%I AS k WHERE k.%I = s.id)', v.relname, v.attname), ' OR ')
            FILTER (WHERE has_column_privilege(c.oid, v.attname, 'SELECT')) AS condition
    FROM (VALUES ('conversation_members', 'user_id'), ('users', 'id')) AS v (relname, attname)
    JOIN pg_catalog.pg_class AS c ON c.relname = v.relname AND c.relnamespace = to_regnamespace('public')
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = v.attname AND a.atttypid = 'uuid'::regtype
),
columns AS (
    SELECT
        c.oid, c.relkind, a.attnum, a.attnotnull, n.nspname, c.relname, a.attname, c.reltuples,
        format_type(a.atttypid, a.atttypmod) AS type_name,
        coalesce(e.typname, b.typname, t.typname) AS base_name,
        t.typcategory = 'A' AS is_array,
        EXISTS (
            SELECT
            FROM pg_catalog.pg_constraint AS f
            WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid = to_regclass('public.users') AND f.conkey = ARRAY[a.attnum]
        ) AS is_foreign_key,
        -- userId is user_id.
        lower(regexp_replace(a.attname, '([a-z0-9])([A-Z])', '\1_\2', 'g')) ~ (
            '(^|_)(user|author|owner|creator|sender|recipient|receiver|member|viewer|streamer|broadcaster|follower|followee|following'
            '|actor|moderator|inviter|invitee|assignee|reporter|uploader|participant|blocker|subscriber|customer|reviewer|approver)s?(_?u?u?ids?)?$'
            '|(^|_)(host|account|profile|person|editor)_u?u?ids?$|_by(_u?u?id)?$'
        ) AS is_named,
        -- Not pg_relation_size, which waits for a table that is locked.
        least(100, 10000.0 / greatest(1, c.relpages)) AS percent,
        concat_ws(
            '; ',
            CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) END,
            CASE WHEN NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
                THEN format('GRANT SELECT (%I) ON %I.%I TO %I', a.attname, n.nspname, c.relname, current_user) END,
            CASE WHEN known.condition IS NULL THEN format('GRANT SELECT (user_id) ON public.conversation_members TO %I', current_user) END
        ) AS missing_grants,
        known.condition
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
    LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
    CROSS JOIN known
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'orphan_cleaner')
        AND NOT (
            n.nspname = 'public'
            AND (
                c.relname IN ('conversation_members_audit', 'conversation_members_backup', 'orphan_cleaner_goose')
                OR (c.relname = 'users' AND a.attname = 'id')
            )
        )
)
SELECT
    r.nspname::text AS table_schema, r.relname::text AS table_name, r.attname::text AS column_name, r.type_name::text AS type_name,
    r.is_foreign_key::boolean AS is_foreign_key, r.is_named::boolean AS is_named, r.is_array::boolean AS is_array,
    (r.base_name <> 'uuid')::boolean AS is_text, (NOT r.attnotnull)::boolean AS is_nullable,
    round(r.reltuples)::bigint AS rows_estimate, -- -1: never analyzed
    r.missing_grants::text AS missing_grants,
    coalesce(format(
        'SELECT count(*), count(s.id), count(*) FILTER (WHERE %s) FROM (SELECT %s AS id FROM %I.%I TABLESAMPLE SYSTEM (%s)%s WHERE %s IS NOT NULL LIMIT 1000) AS s',
        r.condition,
        CASE
            WHEN r.base_name = 'uuid' THEN v.value
            ELSE format('CASE WHEN %1$s ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'' THEN %1$s::uuid END', v.value)
        END,
        r.nspname, r.relname, round(r.percent, 4), CASE WHEN r.is_array THEN format(', unnest(%I) AS element', r.attname) END, v.value
    ), '')::text AS sampling,
    coalesce((
        SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::smallint [], k.attnum))
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS k ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey)
        WHERE i.indrelid = r.oid AND i.indisprimary AND r.relkind = 'r'
    ), '{}')::text [] AS key_columns,
    coalesce((
        SELECT g.attname
        FROM pg_catalog.pg_attribute AS g
        WHERE g.attrelid = r.oid AND g.attnum > 0 AND NOT g.attisdropped AND g.atttypid = 'timestamptz'::regtype
            AND lower(g.attname) ~ '^(created|inserted|joined|added|sent|started|occurred)_?at$'
        ORDER BY g.attnum
        LIMIT 1
    ), '')::text AS age_column,
    ARRAY(
        SELECT g.attname::text
        FROM pg_catalog.pg_attribute AS g
        WHERE g.attrelid = r.oid AND g.attnum > 0 AND NOT g.attisdropped AND g.attgenerated = ''
        ORDER BY g.attnum
    )::text [] AS column_names
FROM columns AS r
CROSS JOIN LATERAL (SELECT CASE WHEN r.is_array THEN 'element' ELSE format('%I', r.attname) END AS value) AS v
WHERE r.base_name = 'uuid' OR (r.is_named AND NOT r.is_array AND r.base_name IN ('text', 'varchar', 'bpchar'))
ORDER BY r.nspname, r.relname, r.attnum;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetReferences, these values
EXPLAIN (:options) EXECUTE "TargetReferences";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetReferences, any values
EXPLAIN (:options) EXECUTE "TargetReferences";

-- What a migration of a target has to name: the table and its columns, quoted where they must be, with their types, in
-- the order of the table, but for generated columns; and whether a valid btree of all rows begins with the user's column.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the columns of the table.
PREPARE "TargetShape" AS
SELECT
    format('%I.%I', n.nspname, c.relname)::text AS quoted_table,
    quote_ident(c.relname)::text AS quoted_base,
    array_agg(a.attname::text ORDER BY a.attnum)::text [] AS column_names,
    array_agg(quote_ident(a.attname) ORDER BY a.attnum)::text [] AS quoted_columns,
    array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)::text [] AS column_types,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_index AS x
        JOIN pg_catalog.pg_attribute AS u ON u.attrelid = x.indrelid AND u.attnum = x.indkey[0]
        JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
        JOIN pg_catalog.pg_am AS m ON m.oid = i.relam
        WHERE x.indrelid = c.oid AND u.attname = $1::text AND m.amname = 'btree' AND x.indisvalid AND x.indpred IS NULL
    )::boolean AS is_indexed
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE n.nspname = $2::text AND c.relname = $3::text
GROUP BY c.oid, n.nspname, c.relname;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetShape, these values
EXPLAIN (:options) EXECUTE "TargetShape" (:user_column, :table_schema, :table_name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetShape, any values
EXPLAIN (:options) EXECUTE "TargetShape" (:user_column, :table_schema, :table_name);

-- A function or table of ours whose name a target of this name would take, or an empty text.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: those of ours.
PREPARE "TargetTaken" AS
SELECT coalesce(
    (
        SELECT 'function orphan_cleaner.' || min(p.proname)
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
            AND p.proname IN ($1::text || '_page', $1::text || '_holders', $1::text || '_total', $1::text || '_facts', $1::text || '_delete', $1::text || '_restore_plan')
    ),
    (
        SELECT 'table orphan_cleaner.' || min(c.relname)
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = to_regnamespace('orphan_cleaner') AND c.relname IN ($1::text || '_audit', $1::text || '_backup')
    ),
    ''
)::text AS taken;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetTaken, these values
EXPLAIN (:options) EXECUTE "TargetTaken" (:name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetTaken, any values
EXPLAIN (:options) EXECUTE "TargetTaken" (:name);

-- The statement that counts the candidates with rows in a target, or an empty text where its functions or its table are not there.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: none.
PREPARE "TargetHolding" AS
SELECT CASE
    WHEN to_regprocedure(format('orphan_cleaner.%I(uuid [])', $1::text || '_holders')) IS NULL THEN ''
    WHEN EXISTS (SELECT FROM orphan_cleaner.targets AS t WHERE t.name = $1::text AND to_regclass(t.table_name) IS NULL) THEN ''
    ELSE format('SELECT count(*) FROM orphan_cleaner.%I(ARRAY(SELECT c.user_id FROM orphan_cleaner.candidates AS c))', $1::text || '_holders')
END::text AS holding;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetHolding, these values
EXPLAIN (:options) EXECUTE "TargetHolding" (:name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetHolding, any values
EXPLAIN (:options) EXECUTE "TargetHolding" (:name);

-- The registry, in the order of the sweep: each target with the digest that was printed (empty: built in), and with that
-- of its functions as they are; and how the table differs from what its backup was printed for, of an update in the columns
-- that its functions name.
-- Locks: ACCESS SHARE on targets. Index: none needed: a few rows. Rows: the targets, their functions and columns.
PREPARE "TargetList" AS
SELECT
    t.name, t.table_name, t.user_column, t.action, coalesce(extract(EPOCH FROM t.retention), 0)::bigint AS retention_seconds, t.limits,
    coalesce(extract(EPOCH FROM t.backup_window), 0)::bigint AS backup_window_seconds, coalesce(t.counter, 'null') AS counter,
    coalesce(t.digest, '')::text AS digest, t.applied_at, t.applied_by,
    coalesce((
        SELECT encode(
            sha256(convert_to(
                string_agg(p.proname || E'\n' || array_to_string(p.proconfig, E'\n') || E'\n' || p.prosrc, E'\n' ORDER BY p.proname COLLATE "C"), 'UTF8'
            )),
            'hex'
        )
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'orphan_cleaner'::regnamespace
            AND p.proname IN (SELECT t.name || '_' || v.verb FROM unnest($1::text []) AS v (verb))
    ), '')::text AS functions_digest,
    coalesce((
        SELECT string_agg(
            CASE
                WHEN n.attname IS NULL THEN format('column %s is gone', p.attname)
                WHEN p.attname IS NULL THEN format('column %s is new', n.attname)
                ELSE format('column %s is %s, and was %s', n.attname, n.type, b.type)
            END, ', ' ORDER BY coalesce(n.attname, p.attname)
        )
        FROM (
            SELECT unnest(substring(f.prosrc FROM '''(\{"[^}]*\})''::name \[\] IS DISTINCT')::name []) AS attname
            FROM pg_catalog.pg_proc AS f
            WHERE f.pronamespace = 'orphan_cleaner'::regnamespace AND f.proname = t.name || '_audit_deleted'
            UNION ALL
            SELECT a.attname
            FROM pg_catalog.pg_proc AS f
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = to_regclass(t.backup_table) AND a.attnum > 0 AND NOT a.attisdropped AND f.prosrc ~ format('\."?%s\M', a.attname)
            WHERE f.pronamespace = 'orphan_cleaner'::regnamespace AND f.proname = t.name || '_keep' AND a.attname NOT IN ('set_to', 'backed_up_at', 'run_id')
        ) AS p
        FULL JOIN (
            SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_catalog.pg_attribute AS a
            -- By names: who lists may have no right on the schema.
            JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
            WHERE format('%I.%I', s.nspname, c.relname) = t.table_name AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ) AS n ON n.attname = p.attname
        LEFT JOIN (
            SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = to_regclass(t.backup_table) AND a.attnum > 0 AND NOT a.attisdropped
        ) AS b ON b.attname = n.attname
        WHERE t.digest IS NOT NULL
            AND (n.attname IS NULL OR p.attname IS NULL AND t.action = 'delete' OR p.attname IS NOT NULL AND n.type IS DISTINCT FROM b.type)
    ), '')::text AS columns_differ
FROM orphan_cleaner.targets AS t
ORDER BY t.ordinal;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == TargetList, these values
EXPLAIN (:options) EXECUTE "TargetList" (:verbs);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == TargetList, any values
EXPLAIN (:options) EXECUTE "TargetList" (:verbs);

-- The targets in the order of the sweep, which is that of counts in arrays.
-- Locks: ACCESS SHARE on targets. Index: none needed: a few rows. Rows: the targets.
PREPARE "UserTargets" AS
SELECT t.name
FROM orphan_cleaner.targets_in_order AS t
ORDER BY t.n;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == UserTargets, these values
EXPLAIN (:options) EXECUTE "UserTargets";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == UserTargets, any values
EXPLAIN (:options) EXECUTE "UserTargets";

-- The next distinct user ids of a target from one on, in order, and how many rows they have. As one array: a row for each
-- of 5,000 users costs both sides more than finding them.
-- Locks: ACCESS SHARE on the target.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the rows of max_users users.
PREPARE "UserPage" AS
SELECT p.user_ids::uuid [] AS users, p.row_count::bigint AS rows
FROM orphan_cleaner.target_page($1::text, $2::uuid, $3::bigint) AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == UserPage, these values
EXPLAIN (:options) EXECUTE "UserPage" (:target, :from_user, :max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == UserPage, any values
EXPLAIN (:options) EXECUTE "UserPage" (:target, :from_user, :max_users);

-- Users who were alive in every run so far: with rows older than a month, no candidates; spread over all ids and, of
-- members, over those who read messages and who do not, and over old and new ones. An auth-service that misses many of
-- them is wrong.
-- Locks: ACCESS SHARE on the targets, candidates and unknowns.
-- Index: conversation_members_user_id, candidates_pkey. Rows: 20 for each of the users.
PREPARE "UserCanaries" AS
SELECT DISTINCT c.user_id::uuid AS user_id
FROM orphan_cleaner.target_canaries($1::integer) AS c (user_id);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == UserCanaries, these values
EXPLAIN (:options) EXECUTE "UserCanaries" (:users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == UserCanaries, any values
EXPLAIN (:options) EXECUTE "UserCanaries" (:users);

-- The same for a run: none before ten runs have succeeded, so that nobody was found alive only once.
-- Locks: ACCESS SHARE on runs, the targets, candidates and unknowns.
-- Index: runs_succeeded backwards, conversation_members_user_id, candidates_pkey. Rows: ten runs, 20 for each of the users.
PREPARE "RunCanaries" AS
SELECT DISTINCT c.user_id::uuid AS user_id
FROM orphan_cleaner.target_canaries($1::integer) AS c (user_id)
WHERE (
    SELECT count(*)
    FROM (SELECT FROM orphan_cleaner.runs AS r WHERE r.kind = 'clean' AND r.state = 'succeeded' ORDER BY r.run_id DESC LIMIT 10) AS earlier
) = 10;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunCanaries, these values
EXPLAIN (:options) EXECUTE "RunCanaries" (:users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunCanaries, any values
EXPLAIN (:options) EXECUTE "RunCanaries" (:users);
