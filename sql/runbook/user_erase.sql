-- What:    empties what is personal in the records about one user, where the law asks for it. A dry look
--          unless -v execute=1. It works on what is ours; memberships, messages and the shadow table
--          are messaging-service's to delete, first: a membership deleted later is audited again.
--            audit     the row stays; user_id becomes the nil UUID, role and joined_at null
--            backup    the row stays; every column of the member but conversation_id becomes null
--            holds, restores   the row stays, user_id becomes a number in the form of a UUID,
--                      00000000-0000-0000-0000-…, which is unique there; the hold's reason is emptied
--            audit and backup of further targets   the row stays; every column of the target's row becomes null
--            event_cursors   the place in a run becomes that of the nil UUID; the user is told to no sink any more
--            runs      settings and error: the id becomes the nil UUID
--            ledger, staging, unknowns, refusals, rechecks: the user's rows go
--          What stays says that a membership of this conversation went, when, and by which run: the
--          number of audit and backup rows of each run is what it was, so the count proof holds. What is
--          emptied cannot be restored: a row without user_id is in no restore, by whatever statement.
--          Reports count these deletions as before, but do not count their users in the size that a
--          conversation had.
--          It is refused while the user is on hold, is a member anywhere, has rows in a target, or while a run is open.
-- Locks:   SHARE ROW EXCLUSIVE on orphan_cleaner.runs and orphan_cleaner.holds: no run begins and no hold is placed until it
--          is done. ROW EXCLUSIVE on our other tables; the application's deletes do not wait for it.
-- Time:    reads the audit and the backup whole, three times: 1 s per 2 million rows.
-- As:      orphan_cleaner_migrator.
-- Example: psql "$DATABASE_URL" -v user=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10 -v execute=1 -f sql/runbook/user_erase.sql
--          Database backups and the server's log keep what they have until they expire.

\set ON_ERROR_STOP on
\if :{?user}
\else
    DO $$ BEGIN RAISE EXCEPTION 'say which user: -v user=UUID'; END $$;
\endif
\if :{?execute}
\else
    \set execute 0
\endif
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL lock_timeout = '3s';
SET LOCAL statement_timeout = '30min';
-- Before the snapshot: no run, restore or hold begins that what follows would not see.
LOCK TABLE orphan_cleaner.runs, orphan_cleaner.holds IN SHARE ROW EXCLUSIVE MODE;
-- How a DO block gets at it.
SELECT set_config('orphan_cleaner.erase', :'user'::uuid::text, true) AS "user"
\gset

DO $$
#variable_conflict use_variable
DECLARE
    erased CONSTANT uuid := current_setting('orphan_cleaner.erase');
    target record;
    has_rows boolean;
BEGIN
    IF erased = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'the nil UUID stands for whoever was erased';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.holds_in_force WHERE user_id = erased) THEN
        RAISE EXCEPTION 'user % is on hold', erased
            USING HINT = 'A hold may be a legal one. Lift it first, if you may: orphan-cleaner hold list';
    END IF;
    IF EXISTS (SELECT FROM public.conversation_members WHERE user_id = erased) THEN
        RAISE EXCEPTION 'user % is a member of % conversations', erased,
            (SELECT count(*) FROM public.conversation_members WHERE user_id = erased)
            USING HINT = 'Delete these memberships first: their deletion will be audited, too.';
    END IF;
    FOR target IN SELECT name, table_name FROM orphan_cleaner.targets WHERE name <> 'conversation_members' ORDER BY ordinal LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM orphan_cleaner.%I($1))', target.name || '_holders') INTO has_rows USING ARRAY[erased];
        IF has_rows THEN
            RAISE EXCEPTION 'user % has rows in %', erased, target.table_name USING HINT = 'Delete or update these first: that will be audited, too.';
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM orphan_cleaner.runs WHERE state = 'running') THEN
        RAISE EXCEPTION 'a run is open, which may have staged the user' USING HINT = 'Try again when it has ended: orphan-cleaner status';
    END IF;
END
$$;

\echo '== Of user' :user
SELECT
    (SELECT count(*) FROM public.conversation_members_audit WHERE user_id = :'user') AS audit_rows,
    (SELECT count(*) FROM public.conversation_members_backup WHERE user_id = :'user') AS backup_rows,
    (SELECT count(*) FROM orphan_cleaner.holds WHERE user_id = :'user') AS holds,
    (SELECT count(*) FROM orphan_cleaner.candidates WHERE user_id = :'user') AS ledger_rows,
    (SELECT count(*) FROM orphan_cleaner.sightings WHERE user_id = :'user') AS staged_rows,
    (SELECT count(*) FROM orphan_cleaner.refusals WHERE user_id = :'user') AS refusal_rows,
    (SELECT count(*) FROM orphan_cleaner.rechecks WHERE user_id = :'user') AS recheck_rows,
    (SELECT count(*) FROM orphan_cleaner.unknowns WHERE user_id = :'user') AS unknown_rows,
    (SELECT count(*) FROM orphan_cleaner.restores WHERE user_id = :'user') AS restored_rows,
    (SELECT count(*) FROM orphan_cleaner.runs WHERE settings::text ILIKE '%' || :'user' || '%' OR error ILIKE '%' || :'user' || '%') AS runs;

SELECT format('SELECT %L AS target, (SELECT count(*) FROM %s WHERE %I = %L) AS audit_rows, (SELECT count(*) FROM %s WHERE %3$I = %4$L) AS backup_rows',
    name, audit_table, user_column, :'user', backup_table)
FROM orphan_cleaner.targets
WHERE name <> 'conversation_members'
ORDER BY ordinal
\gexec

\if :execute
    DO $$
    DECLARE
        erased CONSTANT uuid := current_setting('orphan_cleaner.erase');
        nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
        before text;
        after text;
        -- What the count proof compares: rows per run, of all audits and backups.
        proof CONSTANT text := (
            SELECT 'SELECT md5(string_agg(p::text, '' '' ORDER BY p)) FROM ('
                || string_agg(format('SELECT %L, run_id, count(*) FROM %s GROUP BY run_id', e.name, e.name), ' UNION ALL ') || ') AS p'
            FROM orphan_cleaner.targets AS t
            CROSS JOIN LATERAL (VALUES (t.audit_table), (t.backup_table)) AS e (name)
        );
        emptied text;
        remains text;
        item record;
    BEGIN
        EXECUTE proof INTO before;

        UPDATE public.conversation_members_audit SET user_id = nobody, role = NULL, joined_at = NULL WHERE user_id = erased;
        -- By name, from the catalog: also a column that messaging-service added.
        SELECT string_agg(format('%I = NULL', attname), ', ') INTO emptied
        FROM pg_attribute
        WHERE attrelid = 'public.conversation_members_backup'::regclass
            AND attnum > 0
            AND NOT attisdropped
            AND attname NOT IN ('conversation_id', 'backed_up_at', 'run_id');
        EXECUTE format('UPDATE public.conversation_members_backup SET %s WHERE user_id = $1', emptied) USING erased;
        FOR item IN
            SELECT e.name, t.user_column, (
                SELECT string_agg(format('%I = NULL', a.attname), ', ')
                FROM pg_attribute AS a
                WHERE a.attrelid = e.name::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (e.ours)
            ) AS emptied
            FROM orphan_cleaner.targets AS t
            CROSS JOIN LATERAL (
                VALUES
                (t.audit_table, ARRAY['deleted_at', 'deleted_by', 'application', 'run_id', 'txid']),
                (t.backup_table, ARRAY['backed_up_at', 'run_id'])
            ) AS e (name, ours)
            WHERE t.name <> 'conversation_members'
        LOOP
            EXECUTE format('UPDATE %s SET %s WHERE %I = $1', item.name, item.emptied, item.user_column) USING erased;
        END LOOP;
        UPDATE orphan_cleaner.holds
        SET user_id = ('00000000-0000-0000-0000-' || lpad(to_hex(hold_id), 12, '0'))::uuid,
            reason = 'erased'
        WHERE user_id = erased;
        UPDATE orphan_cleaner.restores AS r
        SET user_id = ('00000000-0000-0000-0000-' || lpad(to_hex(numbered.n), 12, '0'))::uuid,
            row_key = ''
        FROM (
            SELECT o.run_id, o.conversation_id, o.target, o.row_key,
                row_number() OVER (PARTITION BY o.run_id ORDER BY o.conversation_id, o.target, o.row_key) + (
                    SELECT count(*)
                    FROM orphan_cleaner.restores AS e
                    WHERE e.run_id = o.run_id AND e.user_id::text LIKE '00000000-0000-0000-0000-%'
                ) AS n
            FROM orphan_cleaner.restores AS o
            WHERE o.user_id = erased
        ) AS numbered
        WHERE r.run_id = numbered.run_id
            AND r.conversation_id = numbered.conversation_id
            AND r.target = numbered.target
            AND r.row_key = numbered.row_key
            AND r.user_id = erased;
        -- A little is told again, with the same ids.
        UPDATE orphan_cleaner.event_cursors SET user_id = nobody WHERE user_id = erased;
        UPDATE orphan_cleaner.runs
        SET settings = regexp_replace(settings::text, erased::text, nobody::text, 'gi')::jsonb,
            error = regexp_replace(error, erased::text, nobody::text, 'gi')
        WHERE settings::text ILIKE '%' || erased || '%'
            OR error ILIKE '%' || erased || '%';
        DELETE FROM orphan_cleaner.candidates WHERE user_id = erased;
        DELETE FROM orphan_cleaner.sightings WHERE user_id = erased;
        DELETE FROM orphan_cleaner.refusals WHERE user_id = erased;
        DELETE FROM orphan_cleaner.rechecks WHERE user_id = erased;
        DELETE FROM orphan_cleaner.unknowns WHERE user_id = erased;

        EXECUTE proof INTO after;
        IF after IS DISTINCT FROM before THEN
            RAISE EXCEPTION 'the rows of a run are not as many as before: nothing is erased';
        END IF;
        -- No table of ours names the user any more, whichever column it was.
        FOR item IN
            SELECT c.oid::regclass AS name
            FROM pg_class AS c
            WHERE c.relkind IN ('r', 'p')
                AND NOT c.relispartition
                AND (
                    c.relnamespace = 'orphan_cleaner'::regnamespace
                    OR c.oid IN ('public.conversation_members_audit'::regclass, 'public.conversation_members_backup'::regclass)
                )
        LOOP
            EXECUTE format('SELECT (SELECT t::text FROM %s AS t WHERE t::text ILIKE $1 LIMIT 1)', item.name)
                INTO remains USING '%' || erased || '%';
            IF remains IS NOT NULL THEN
                RAISE EXCEPTION '% still names the user: nothing is erased', item.name USING DETAIL = remains;
            END IF;
        END LOOP;
    END
    $$;
    COMMIT;
    \echo 'Erased. Keep the request and this output where such things are kept: the database says no more whose rows they were.'
\else
    ROLLBACK;
    \echo 'Nothing was changed. With -v execute=1 these rows are emptied.'
\endif
