-- Why:      VERIFY pages through the distinct user ids and SWEEP finds a user's members: both need an index that
--           messaging-service's table often lacks. And what else is around that table decides whether a run can prove and
--           undo what it deletes: one function examines it, for `check`, for each run and for psql.
-- Locks:    SHARE UPDATE EXCLUSIVE on conversation_members while the index is built: reads and writes go on, VACUUM and DDL
--           wait. A leftover of a build that failed is dropped first (ACCESS EXCLUSIVE for milliseconds, 3 s at most to
--           get it). ANALYZE takes the same lock for the time of reading a sample. The function: the catalog, and the last run.
-- Printed:  the index, by the templates of internal/printer, as that of any target.
-- Duration: about 1 s a million rows; it also waits for transactions older than itself.
-- Rollback: drops the functions, and the index, concurrently, unless it was there before.

-- +goose NO TRANSACTION

-- +goose Up
-- An attempt that was cut off leaves an invalid index behind, which IF NOT EXISTS would take for the real one.
-- +goose StatementBegin
DO $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_index
        WHERE indexrelid = pg_catalog.to_regclass('public.conversation_members_user_id')
            AND NOT indisvalid
    ) THEN
        DROP INDEX public.conversation_members_user_id;
    END IF;
END
$$;
-- +goose StatementEnd

-- Its storage parameter is the default; said, it tells Down that the index is ours, and not one that was there already.
CREATE INDEX CONCURRENTLY IF NOT EXISTS conversation_members_user_id ON public.conversation_members (user_id) WITH (deduplicate_items = on);

-- A table that was loaded or restored lately may have no statistics: the planner would then sort the whole table for every page.
ANALYZE public.conversation_members;

-- One statement for the server, and so one transaction; OR REPLACE: it may have been cut off before its version was recorded.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_cleaner.surroundings()
RETURNS TABLE (check_name text, status text, message text, hint text)
LANGUAGE sql
STABLE
-- Here the current user is the owner of the functions that delete and restore: what it may and what it sees decides.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    WITH target AS (
        SELECT
            t.ordinal AS n, t.name, t.user_column, t.action, t.table_name, t.digest IS NULL AS is_shipped,
            regexp_replace(t.table_name, '^public\.', '') AS shown, CASE WHEN t.digest IS NULL THEN 'members' ELSE 'rows' END AS what,
            c.oid, c.relkind, c.relrowsecurity
        FROM orphan_cleaner.targets AS t
        LEFT JOIN pg_class AS c ON c.oid = to_regclass(t.table_name)
        -- What is wrong with the shipped one is in members_shape.
        WHERE c.oid IS NOT NULL OR t.digest IS NOT NULL
    ),
    evidence AS (
        SELECT to_regclass(e.name) AS id, split_part(e.name, '.', 1) AS home, split_part(e.name, '.', 2) AS name, e.digits
        FROM orphan_cleaner.targets AS t
        CROSS JOIN LATERAL (VALUES (t.audit_table, 6), (t.backup_table, 8)) AS e (name, digits)
    ),
    ours AS (
        SELECT c.*, i.inhparent
        FROM pg_class AS c
        LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
        WHERE c.relkind IN ('r', 'p')
            AND (c.relnamespace = 'orphan_cleaner'::regnamespace OR i.inhparent IN (SELECT e.id FROM evidence AS e)
                OR c.oid IN (SELECT e.id FROM evidence AS e)
                OR c.oid IN (to_regclass('public.orphan_cleaner_goose'), to_regclass('public.orphan_cleaner_targets_goose')))
    ),
    foreign_triggers AS (
        -- Those that fire in what a run or a restore does. Bits of tgtype: 1 for each row, 2 before, 4 insert, 8 delete, 16 update.
        SELECT
            m.n, t.tgname, p.prosecdef, p.prosrc, t.tgtype & 3 = 3 AND t.tgtype & b.does <> 0 AS may_keep, t.tgtype & 3 = 3 AND t.tgtype & b.undoes <> 0 AS may_change,
            format('%s (%s %s)', t.tgname, CASE t.tgtype & 2 WHEN 2 THEN 'BEFORE' ELSE 'AFTER' END,
                CASE t.tgtype & (b.does | b.undoes) WHEN 12 THEN 'INSERT OR DELETE' WHEN 8 THEN 'DELETE' WHEN 4 THEN 'INSERT' ELSE 'UPDATE' END) AS shown
        FROM target AS m
        CROSS JOIN LATERAL (SELECT CASE m.action WHEN 'delete' THEN 8 ELSE 16 END AS does, CASE m.action WHEN 'delete' THEN 4 ELSE 16 END AS undoes) AS b
        JOIN pg_trigger AS t ON t.tgrelid = m.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & (b.does | b.undoes) <> 0
        JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.pronamespace <> 'orphan_cleaner'::regnamespace
    ),
    lacking AS (
        -- What the text of their functions evidently writes to, and this role may not. A name without a schema is looked
        -- for in public, as in the deleting function.
        SELECT DISTINCT
            t.n, t.tgname, w.privilege, c.oid::regclass AS relation,
            CASE WHEN NOT has_schema_privilege(c.relnamespace, 'USAGE')
                THEN format('GRANT USAGE ON SCHEMA %s TO %I; ', c.relnamespace::regnamespace, current_user) ELSE '' END
            || format('GRANT SELECT, %s ON %s TO %I', w.privilege, c.oid::regclass, current_user) AS grants
        FROM foreign_triggers AS t
        CROSS JOIN LATERAL regexp_matches(t.prosrc, '\m(insert\s+into|update|delete\s+from)\s+(?:only\s+)?(?:"?(\w+)"?\.)?"?(\w+)"?', 'gi') AS e (word)
        CROSS JOIN LATERAL (SELECT upper(substring(e.word[1] FROM '\w+')) AS privilege, coalesce(e.word[2], 'public') AS schema_name) AS w
        JOIN pg_class AS c ON c.relname IN (e.word[3], lower(e.word[3]))
            AND c.relnamespace IN (to_regnamespace(quote_ident(w.schema_name)), to_regnamespace(quote_ident(lower(w.schema_name))))
        WHERE NOT t.prosecdef
            AND NOT (has_schema_privilege(c.relnamespace, 'USAGE') AND CASE w.privilege
                WHEN 'DELETE' THEN has_table_privilege(c.oid, 'DELETE') ELSE has_any_column_privilege(c.oid, w.privilege) END)
    ),
    published AS (
        SELECT p.pubname, p.pubdelete OR p.pubupdate AS sends_changes, r.prattrs, o.oid, o.relkind, o.relreplident, o.is_ours,
            ARRAY(SELECT e.word[1]::int2 FROM regexp_matches(r.prqual::text, ':varattno (\d+)', 'g') AS e (word)) AS filters
        FROM (
            SELECT s.*, true AS is_ours FROM ours AS s
            UNION ALL
            SELECT c.*, NULL, false FROM pg_class AS c WHERE c.oid IN (SELECT m.oid FROM target AS m)
        ) AS o
        CROSS JOIN pg_publication AS p
        LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid IN (o.oid, o.inhparent)
        WHERE o.relpersistence = 'p'
            AND (p.puballtables OR r.prrelid IS NOT NULL
                OR EXISTS (SELECT FROM pg_publication_namespace AS n WHERE n.pnpubid = p.oid AND n.pnnspid = o.relnamespace))
    ),
    detached AS (
        -- Named as partitions of ours, and not attached, or not for long.
        SELECT
            c.relname, e.home, e.name AS parent, i.inhrelid IS NOT NULL AS is_pending, b.lower_bound,
            (b.lower_bound + b.width)::date AS upper_bound,
            b.lower_bound + b.width > now() AT TIME ZONE 'UTC' AS is_needed
        FROM evidence AS e
        JOIN pg_class AS c ON c.relnamespace = to_regnamespace(e.home) AND c.relname ~ format('^%s_\d{%s}$', e.name, e.digits)
        CROSS JOIN LATERAL (SELECT right(c.relname, e.digits) AS day) AS n
        CROSS JOIN LATERAL (
            -- Not to_date, which fails where there is no such day.
            SELECT (timestamp '0001-01-01' + make_interval(left(n.day, 4)::integer - 1, substr(n.day, 5, 2)::integer - 1, 0,
                coalesce(nullif(substr(n.day, 7), ''), '1')::integer - 1))::date AS lower_bound,
                CASE e.digits WHEN 6 THEN interval '1 month' ELSE interval '1 day' END AS width
        ) AS b
        LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = e.id
        WHERE c.relkind = 'r'
            AND n.day IN (to_char(b.lower_bound, 'YYYYMM'), to_char(b.lower_bound, 'YYYYMMDD'))
            AND i.inhdetachpending IS DISTINCT FROM false
    ),
    checks (ordinal, n, check_name, status, fine, wrong, hint) AS (
        SELECT
            1, m.n, 'table-kind', CASE WHEN m.relkind = 'r' AND NOT i.is_tree AND NOT i.is_distributed THEN 'ok' ELSE 'FAIL' END,
            m.shown || ' is an ordinary table',
            m.shown || CASE WHEN m.oid IS NULL THEN ' is registered as a target, and not there' ELSE format(' is %s: deletes by way of another table would escape the audit',
                CASE WHEN i.is_distributed THEN 'distributed by Citus' ELSE CASE m.relkind WHEN 'r' THEN 'part of an inheritance tree' WHEN 'p' THEN 'partitioned' WHEN 'f' THEN 'a foreign table' WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a view' ELSE 'no table' END END) END,
            CASE WHEN m.oid IS NULL THEN 'create or rename the table, or retire the target, see docs/targets.md'
                ELSE format('keep the %s in one ordinary table: orphan-cleaner supports no other, see docs/surroundings.md', m.what) END
        FROM target AS m
        CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM pg_inherits AS h WHERE m.oid IN (h.inhrelid, h.inhparent)) AS is_tree, orphan_cleaner.is_distributed(m.oid) AS is_distributed
        ) AS i
        UNION ALL
        SELECT
            2, m.n, 'row-security', CASE WHEN s.is_bound THEN 'FAIL' WHEN m.relrowsecurity AND NOT s.sees_all THEN 'warn' ELSE 'ok' END,
            CASE WHEN m.is_shipped THEN 'hides no member from a run' WHEN m.n IS NOT NULL THEN 'no row of ' || m.shown END,
            format('row-level security of %s is on: ', m.shown) || CASE WHEN s.is_bound
                THEN format('role %s, whose functions a run calls, would see a part of the %s, or none', current_user, m.what)
                ELSE format('runs see every %s, status and report count those that role %s sees', rtrim(m.what, 's'), session_user) END,
            format('as a superuser: ALTER ROLE %I BYPASSRLS', CASE WHEN s.is_bound THEN current_user ELSE session_user END)
            || format('; or, as the owner of the table: ALTER TABLE %s DISABLE ROW LEVEL SECURITY', m.table_name)
        FROM (
            SELECT t.n, t.oid, t.shown, t.what, t.table_name, t.is_shipped, t.relrowsecurity FROM target AS t WHERE t.oid IS NOT NULL
            UNION ALL
            -- Since when users are gone, and which conversations a restore finds; that status and report see less does not matter.
            SELECT NULL, c.oid, c.relname, 'rows', format('public.%I', c.relname), false, false
            FROM pg_class AS c
            WHERE c.relnamespace = 'public'::regnamespace AND c.oid NOT IN (SELECT t.oid FROM target AS t WHERE t.oid IS NOT NULL)
                AND (c.relname = 'conversations'
                    OR c.relname = 'users' AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'deleted_at' AND NOT a.attisdropped))
        ) AS m
        CROSS JOIN LATERAL (
            SELECT row_security_active(m.oid) AS is_bound, bool_or(r.rolsuper OR r.rolbypassrls) AS sees_all FROM pg_roles AS r WHERE r.rolname = session_user
        ) AS s
        UNION ALL
        SELECT
            3, m.n, 'rules', CASE WHEN bool_or(w.is_grave) THEN 'FAIL' WHEN count(r.oid) > 0 THEN 'warn' ELSE 'ok' END,
            'none on ' || m.shown,
            format('rules on %s: ', m.shown) || string_agg(w.shown, ', ' ORDER BY w.shown)
            || CASE WHEN bool_or(w.is_grave) THEN format(': %s would stay, or could not be restored', m.what) ELSE ': nobody backs up what it changes' END,
            'put a trigger in its place, then: ' || string_agg(format('DROP RULE %I ON %s', r.rulename, m.table_name), '; ' ORDER BY w.shown) FILTER (WHERE r.oid IS NOT NULL)
        FROM target AS m
        LEFT JOIN pg_rewrite AS r ON r.ev_class = m.oid AND r.ev_type IN ('2', '3', '4') AND r.ev_enabled IN ('O', 'A')
        CROSS JOIN LATERAL (
            -- INSERT ... ON CONFLICT, as a restore does, is an error beside a rule for INSERT or UPDATE.
            SELECT r.is_instead OR r.ev_type <> '4' AS is_grave, format('%s ON %s DO %s', r.rulename,
                CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END, CASE WHEN r.is_instead THEN 'INSTEAD' ELSE 'ALSO' END) AS shown
        ) AS w
        GROUP BY m.n, m.shown, m.what, m.table_name
        UNION ALL
        SELECT
            4, m.n, w.name, CASE WHEN t.tgenabled = 'A' AND t.tgfoid = p.oid THEN 'ok' ELSE 'FAIL' END,
            'enabled, always',
            format('the trigger %s on %s ', w.name, m.shown) || CASE
                WHEN t.oid IS NULL THEN 'is not there: dropped, or the table was swapped for a copy'
                WHEN t.tgfoid IS DISTINCT FROM p.oid THEN 'calls a function that is not ours'
                ELSE CASE t.tgenabled WHEN 'D' THEN 'is disabled' WHEN 'R' THEN 'fires on replicas only' ELSE 'is not ENABLE ALWAYS' END
            END,
            CASE WHEN t.tgfoid = p.oid THEN '' ELSE format(
                'as the owner of the table: CREATE OR REPLACE TRIGGER %s %s STATEMENT EXECUTE FUNCTION orphan_cleaner.%s(); ',
                w.name, w.fires, w.function) END || format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', m.table_name, w.name)
        FROM target AS m
        CROSS JOIN LATERAL (
            VALUES
            (m.name || '_audit_delete', format('AFTER DELETE ON %s REFERENCING OLD TABLE AS gone FOR EACH', m.table_name),
                m.name || '_audit_deleted'),
            (m.name || '_refuse_truncate', format('BEFORE TRUNCATE ON %s FOR EACH', m.table_name), 'refuse_truncate')
        ) AS w (name, fires, function)
        LEFT JOIN pg_proc AS p ON p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proname = w.function
        LEFT JOIN pg_trigger AS t ON t.tgrelid = m.oid AND t.tgname = w.name
        WHERE m.action = 'delete'
        UNION ALL
        SELECT
            5, m.n, 'foreign-triggers', CASE WHEN bool_or(t.may_keep OR t.may_change) OR bool_or(l.list IS NOT NULL) THEN 'warn' ELSE 'ok' END,
            coalesce('role ' || current_user || ' lacks nothing that these evidently need: ' || string_agg(t.shown, ', ' ORDER BY t.tgname), 'none on ' || m.shown),
            format('triggers of others on %s: ', m.shown) || string_agg(
                t.shown || CASE WHEN t.may_keep THEN format(' may keep %s, whose users are blocked then', m.what) ELSE '' END
                || CASE WHEN t.may_change THEN ' may keep or change what a restore inserts' ELSE '' END || coalesce(
                    format(' needs what role %s lacks, ', current_user) || l.list, ''), ', ' ORDER BY t.tgname),
            coalesce(string_agg(l.grants, '; ' ORDER BY t.tgname), 'let their author confirm that a run''s deletes pass, and a restore''s rows unchanged; see docs/surroundings.md')
        FROM target AS m
        LEFT JOIN foreign_triggers AS t ON t.n = m.n
        LEFT JOIN LATERAL (
            SELECT string_agg(n.privilege || ' on ' || n.relation, ', ' ORDER BY n.grants) AS list, string_agg(n.grants, '; ' ORDER BY n.grants) AS grants
            FROM lacking AS n WHERE n.n = t.n AND n.tgname = t.tgname
        ) AS l ON true
        GROUP BY m.n, m.shown, m.what
        UNION ALL
        SELECT
            6, m.n, 'foreign-keys', CASE WHEN bool_or(w.destroys) THEN 'FAIL' WHEN count(k.oid) > 0 THEN 'warn' ELSE 'ok' END,
            'no table refers to ' || m.shown,
            format('tables refer to %s: ', m.shown) || string_agg(w.shown, ', ' ORDER BY w.shown)
            || CASE WHEN bool_or(w.destroys) THEN ': a run would delete or change rows there that nobody backs up' ELSE ': users with rows there are blocked' END,
            coalesce(
                string_agg(format('ALTER TABLE %1$s DROP CONSTRAINT %2$I, ADD CONSTRAINT %2$I %3$s', k.conrelid::regclass, k.conname,
                    regexp_replace(pg_get_constraintdef(k.oid), ' ON DELETE (CASCADE|SET NULL|SET DEFAULT)( \([^)]*\))?', '')), '; ' ORDER BY w.shown)
                FILTER (WHERE w.destroys),
                'let their owners confirm that such a row is to keep the ' || rtrim(m.what, 's')
            )
        FROM target AS m
        -- Of a partitioned table its own constraint, and not those of its partitions.
        LEFT JOIN pg_constraint AS k ON k.confrelid = m.oid AND k.contype = 'f' AND k.conparentid = 0
            -- Since 18 there are some that do nothing.
            AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
        CROSS JOIN LATERAL (
            -- What is audited, and taken back, is not lost.
            SELECT k.confdeltype IN ('n', 'd') OR k.confdeltype = 'c' AND NOT EXISTS (SELECT FROM target AS o WHERE o.oid = k.conrelid AND o.action = 'delete') AS destroys, format('%s by %s ON DELETE %s', k.conrelid::regclass, k.conname, CASE k.confdeltype
                WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END) AS shown
        ) AS w
        WHERE m.action = 'delete'
        GROUP BY m.n, m.shown, m.what
        UNION ALL
        SELECT
            7, m.n, 'index', CASE WHEN EXISTS (
                SELECT
                FROM pg_index AS x
                JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] AND a.attname = m.user_column
                JOIN pg_class AS c ON c.oid = x.indexrelid
                JOIN pg_am AS b ON b.oid = c.relam AND b.amname = 'btree'
                -- Of an update, of the rows that are not done yet.
                WHERE x.indrelid = m.oid AND x.indisvalid AND (x.indpred IS NULL OR m.action = 'update')
            ) THEN 'ok' ELSE 'FAIL' END,
            format('an index on %s(%s) is valid', m.shown, m.user_column),
            format('no valid index on %s(%s), a btree of all rows: every page of the scan would read the whole table', m.shown, m.user_column),
            -- Without a name, so that no other index or table has it.
            format('CREATE INDEX CONCURRENTLY ON %s (%I)', m.table_name, m.user_column)
        FROM target AS m
        WHERE m.oid IS NOT NULL
        UNION ALL
        SELECT
            8, NULL, 'owner-grants', CASE WHEN count(*) > 0 THEN 'FAIL' ELSE 'ok' END,
            format('role %s may delete members and restore them', current_user),
            format('role %s, whose functions a run calls, lacks %s', current_user, string_agg(g.lacks, ', ' ORDER BY g.ordinal)),
            'psql -f sql/roles.sql'
        FROM (
            SELECT m.n AS ordinal, string_agg(p.privilege, ', ' ORDER BY p.ordinal) || ' on ' || m.shown AS lacks
            FROM target AS m
            CROSS JOIN LATERAL unnest(ARRAY['SELECT', CASE m.action WHEN 'delete' THEN 'INSERT' END, upper(m.action)]) WITH ORDINALITY AS p (privilege, ordinal)
            WHERE NOT CASE p.privilege WHEN 'UPDATE' THEN has_any_column_privilege(m.oid, p.privilege) ELSE has_table_privilege(m.oid, p.privilege) END
            GROUP BY m.n, m.shown
            UNION ALL
            -- What shadow_evidence() reads where users.deleted_at is there, and a restore.
            SELECT 1e9, format('SELECT on %s (%s)', w.relation, string_agg(a.attname, ', ' ORDER BY a.attnum))
            FROM (VALUES ('users', 'deleted_at', '{id,created_at,deleted_at}'::text []), ('conversations', 'id', '{id}')) AS w (relation, needed, columns)
            JOIN pg_attribute AS a ON a.attrelid = to_regclass('public.' || w.relation) AND a.attname = ANY (w.columns) AND NOT a.attisdropped
            GROUP BY w.relation, w.needed
            HAVING 'id' = ANY (array_agg(a.attname)) AND w.needed = ANY (array_agg(a.attname)) AND NOT bool_and(has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
        ) AS g
        UNION ALL
        SELECT
            9, NULL, 'replica-identity', CASE WHEN count(*) > 0 THEN 'FAIL' ELSE 'ok' END,
            'nothing that is published lacks one',
            'published without a replica identity, or with columns or a WHERE that do not fit it, so deletes fail: ' || string_agg(p.oid::regclass || ' by ' || p.pubname, ', ' ORDER BY p.oid),
            string_agg(CASE WHEN p.prattrs IS NULL THEN format('ALTER TABLE %s REPLICA IDENTITY FULL', p.oid::regclass)
                ELSE format('publish %s by %I without a list of columns', p.oid::regclass, p.pubname) END, '; ' ORDER BY p.oid)
        FROM published AS p
        WHERE p.relkind = 'r'
            AND p.sends_changes
            AND NOT (p.relreplident = 'f' AND p.prattrs IS NULL)
            AND NOT EXISTS (
                SELECT
                FROM pg_index AS x
                WHERE x.indrelid = p.oid
                    AND (p.relreplident = 'd' AND x.indisprimary OR p.relreplident = 'i' AND x.indisreplident)
                    AND (p.prattrs IS NULL OR x.indkey::int2 [] <@ p.prattrs::int2 [])
                    AND p.filters <@ x.indkey::int2 []
            )
        UNION ALL
        SELECT
            10, NULL, 'subscribers', CASE WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END,
            'no publication sends our tables',
            'publications send tables of ours: ' || string_agg(DISTINCT p.pubname, ', ') || '; a subscriber stops at each new partition that it has not got',
            'list the tables to publish, without ours; or see docs/surroundings.md'
        FROM published AS p
        WHERE p.is_ours
        UNION ALL
        SELECT
            10, 1, 'subscribers', CASE WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END, NULL,
            'subscriptions fill ' || string_agg(format('%s by %s', m.table_name, s.subname), ', ' ORDER BY m.n, s.subname)
            || ': what a run deletes here stays where it comes from, and deletes that arrive are not audited: they fire no statement trigger',
            'run it where the rows are written; only where both sides write is it right here'
        FROM target AS m
        JOIN pg_subscription_rel AS r ON r.srrelid = m.oid
        JOIN pg_subscription AS s ON s.oid = r.srsubid
        UNION ALL
        SELECT
            11, NULL, 'partitions-detached', CASE WHEN bool_or(d.is_needed) THEN 'FAIL' WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END,
            'none of ours',
            'partitions that somebody detached: ' || string_agg(
                d.relname || CASE WHEN d.is_pending THEN ' (half: a DETACH CONCURRENTLY did not end)' ELSE '' END, ', ' ORDER BY d.relname
            ) || CASE WHEN bool_or(d.is_needed) THEN ': deletes of that time could not be backed up' ELSE ': nothing in them can be restored' END,
            'as the owner of the tables: ' || string_agg(
                CASE WHEN d.is_pending THEN format('ALTER TABLE %1$s.%2$s DETACH PARTITION %1$s.%3$s FINALIZE; ', d.home, d.parent, d.relname) ELSE '' END
                || format('ALTER TABLE %5$s.%1$s ATTACH PARTITION %5$s.%2$s FOR VALUES FROM (''%3$s 00:00:00+00'') TO (''%4$s 00:00:00+00''), or'
                ' ALTER TABLE %5$s.%2$s RENAME TO %2$s_detached', d.parent, d.relname, d.lower_bound, d.upper_bound, d.home), '; ' ORDER BY d.relname)
        FROM detached AS d
        UNION ALL
        SELECT
            12, NULL, 'own-row-security', CASE WHEN count(*) > 0 THEN 'FAIL' ELSE 'ok' END,
            'hides no row of ours from those who may read them',
            format('row-level security is on for %s of our tables, such as %s: runners and readers see none of their rows', count(*), min(o.oid::regclass::text))
            || coalesce((
                SELECT '; it looks as if event trigger ' || string_agg(e.evtname, ', ') || ' had switched it on'
                FROM pg_event_trigger AS e
                JOIN pg_proc AS f ON f.oid = e.evtfoid AND f.prosrc ~* 'row\s+level\s+security'
                WHERE e.evtenabled <> 'D'
            ), ''),
            'psql -f sql/roles.sql, which switches it off for our tables: grants say who reads them'
        FROM ours AS o
        -- A partition is read by way of its parent, whose policies count.
        WHERE o.relrowsecurity
            AND (o.inhparent IS NULL OR pg_get_expr(o.relpartbound, o.oid) = 'DEFAULT')
        UNION ALL
        SELECT
            13, NULL, 'own-grants', CASE WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END,
            'nobody but their owner may write to our tables',
            format('%s may write to %s of our tables, such as %s: evidence could be forged', string_agg(DISTINCT w.grantee, ', '),
                count(DISTINCT w.relation), min(w.relation)),
            'unless that is meant, and not by ALTER DEFAULT PRIVILEGES: '
            || string_agg(DISTINCT format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %s FROM %s', w.relation, w.grantee), '; ')
        FROM (
            SELECT o.oid::regclass::text AS relation, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
            FROM ours AS o
            CROSS JOIN aclexplode(o.relacl) AS a
            WHERE a.grantee <> o.relowner AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
        ) AS w
        UNION ALL
        SELECT
            14, NULL, 'old-transactions', CASE WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END,
            'none is as old as the last run',
            'transactions that were open when the last run ended, and still are: ' || string_agg(t.shown, ', ' ORDER BY t.since)
            || ': rows that were written since they began count as changed, and stay',
            string_agg(t.ends, '; ' ORDER BY t.since)
        FROM (
            SELECT p.prepared AS since, format('%L, prepared by %s in database %s', p.gid, p.owner, p.database) AS shown, format('ROLLBACK PREPARED %L', p.gid) AS ends
            FROM pg_prepared_xacts AS p
            UNION ALL
            -- Those of other roles are seen by who has pg_read_all_stats.
            SELECT a.xact_start, format('process %s of %s in database %s', a.pid, a.usename, a.datname), format('SELECT pg_terminate_backend(%s)', a.pid)
            FROM pg_stat_activity AS a
            WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
        ) AS t
        WHERE t.since < (SELECT r.finished_at FROM orphan_cleaner.runs AS r WHERE r.finished_at IS NOT NULL ORDER BY r.run_id DESC LIMIT 1)
        UNION ALL
        SELECT
            16, NULL, 'own-triggers', CASE WHEN bool_or(w.may_keep) THEN 'FAIL' WHEN count(*) > 0 THEN 'warn' ELSE 'ok' END,
            'none but ours on our tables',
            'of others, on our tables: ' || string_agg(w.shown, ', ' ORDER BY w.shown)
            || CASE WHEN bool_or(w.may_keep) THEN ': ledger and evidence could be lost or changed' ELSE ': each run executes them, and fails if they fail' END,
            string_agg(w.ends, '; ' ORDER BY w.shown)
        FROM (
            SELECT t.tgtype & 3 = 3 AS may_keep, format('trigger %s on %s', t.tgname, o.oid::regclass) AS shown, format('DROP TRIGGER %I ON %s', t.tgname, o.oid::regclass) AS ends
            FROM ours AS o
            JOIN pg_trigger AS t ON t.tgrelid = o.oid AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')
            JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.pronamespace <> 'orphan_cleaner'::regnamespace
            UNION ALL
            SELECT true, format('rule %s on %s', r.rulename, o.oid::regclass), format('DROP RULE %I ON %s', r.rulename, o.oid::regclass)
            FROM ours AS o
            JOIN pg_rewrite AS r ON r.ev_class = o.oid AND r.ev_enabled IN ('O', 'A')
        ) AS w
        UNION ALL
        SELECT
            15, NULL, 'synchronous-standby', CASE WHEN orphan_cleaner.lacks_standby() THEN 'FAIL' ELSE 'ok' END,
            'no COMMIT waits for one that is not there',
            'no standby is connected, and synchronous_standby_names asks for one: each COMMIT waits for ever, the application''s too',
            'start the standby; or, as a superuser, if you can do without: ALTER SYSTEM SET synchronous_standby_names = ''''; SELECT pg_reload_conf()'
        UNION ALL
        SELECT
            17, m.n, 'constraints', CASE WHEN count(k.oid) > 0 THEN 'warn' ELSE 'ok' END,
            format('every row of %s satisfies them', m.shown),
            format('NOT VALID on %s: %s: %s that do not satisfy them could be deleted, and could not be restored', m.shown, string_agg(k.conname, ', ' ORDER BY k.conname), m.what),
            'as the owner of the table: ' || string_agg(format('ALTER TABLE %s VALIDATE CONSTRAINT %I', m.table_name, k.conname), '; ' ORDER BY k.conname) FILTER (WHERE k.oid IS NOT NULL)
        FROM target AS m
        -- Since 18 there are some that are not enforced at all.
        LEFT JOIN pg_constraint AS k ON k.conrelid = m.oid AND NOT k.convalidated AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
        WHERE m.action = 'delete'
        GROUP BY m.n, m.shown, m.what, m.table_name
        UNION ALL
        SELECT
            18, NULL, 'shadow-users', CASE WHEN w.message IS NULL THEN 'ok' ELSE 'warn' END,
            'nothing in users is misread', w.message, w.hint
        FROM (SELECT) AS one
        LEFT JOIN (
            SELECT
                CASE WHEN d.atttypid = 'timestamp'::regtype AND i.atttypid = 'uuid'::regtype
                    THEN 'users.deleted_at has no time zone, and is read as UTC: if it is written in a zone west of it, the retention of users who are missing in the first run ends too soon'
                    ELSE format('users.%s is %s: it does not tell since when a user is gone, and every clock starts when a run first misses the user', t.name, format_type(t.type, NULL)) END AS message,
                CASE WHEN t.name = 'id' THEN 'if that is too late: ALTER TABLE public.users ALTER COLUMN id TYPE uuid USING id::uuid'
                    WHEN t.type = 'timestamp'::regtype THEN 'with the zone that messaging-service writes: ALTER TABLE public.users ALTER COLUMN deleted_at TYPE timestamptz USING deleted_at AT TIME ZONE ''UTC'''
                    -- The end of the day: never too soon.
                    WHEN t.type = 'date'::regtype THEN 'if that is too late: ALTER TABLE public.users ALTER COLUMN deleted_at TYPE timestamptz USING (deleted_at + 1)::timestamp AT TIME ZONE ''UTC'''
                    ELSE 'if that is too late, make it timestamptz' END AS hint
            FROM pg_attribute AS d
            JOIN pg_attribute AS i ON i.attrelid = d.attrelid AND i.attname = 'id' AND NOT i.attisdropped
            CROSS JOIN LATERAL (SELECT CASE WHEN i.atttypid = 'uuid'::regtype THEN 'deleted_at' ELSE 'id' END AS name, CASE WHEN i.atttypid = 'uuid'::regtype THEN d.atttypid ELSE i.atttypid END AS type) AS t
            WHERE d.attrelid = to_regclass('public.users') AND d.attname = 'deleted_at' AND NOT d.attisdropped
                AND t.type NOT IN ('uuid'::regtype, 'timestamptz'::regtype)
                -- Once all users were checked, nothing in it counts any more.
                AND NOT EXISTS (SELECT FROM orphan_cleaner.coverage AS v WHERE v.previous_run_id IS NOT NULL)
        ) AS w ON true
    )
    SELECT s.check_name, s.status, string_agg(s.message, '; '), string_agg(s.hint, '; ')
    FROM orphan_cleaner.members_shape() AS s
    -- Its hints are for a table: what is none is of the wrong kind, and that is all there is to say.
    WHERE NOT EXISTS (SELECT FROM target AS m WHERE m.is_shipped AND m.relkind <> 'r')
    GROUP BY s.check_name, s.status
    UNION ALL
    (
        SELECT
            c.check_name,
            CASE WHEN bool_or(c.status = 'FAIL') THEN 'FAIL' WHEN bool_or(c.status = 'warn') THEN 'warn' ELSE 'ok' END,
            coalesce(string_agg(c.wrong, '; ' ORDER BY c.n) FILTER (WHERE c.status <> 'ok'), string_agg(c.fine, '; ' ORDER BY c.n)),
            coalesce(string_agg(c.hint, '; ' ORDER BY c.n) FILTER (WHERE c.status <> 'ok'), '')
        FROM checks AS c
        GROUP BY c.ordinal, c.check_name
        ORDER BY c.ordinal, c.check_name
    )
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.counter_sample(most integer)
RETURNS TABLE (conversations bigint, wrong bigint, too_high bigint, too_low bigint, largest bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS $$
    -- Some behind each of 50 points, evenly spread over the ids. Of more than 10,000 members none is counted.
    SELECT
        count(*),
        count(*) FILTER (WHERE s.difference <> 0),
        coalesce(sum(s.difference) FILTER (WHERE s.difference > 0), 0)::bigint,
        coalesce(-sum(s.difference) FILTER (WHERE s.difference < 0), 0)::bigint,
        coalesce(max(abs(s.difference)), 0)::bigint
    FROM (
        SELECT DISTINCT c.id, c.member_count - n.members AS difference
        FROM generate_series(0, 49) AS points (n)
        CROSS JOIN (SELECT NULL::bigint AS member_count) AS absent
        CROSS JOIN LATERAL (
            SELECT o.id, member_count::bigint AS member_count
            FROM public.conversations AS o
            WHERE o.id >= (lpad(to_hex(points.n * 65536 / 50), 4, '0') || repeat('0', 28))::uuid
            ORDER BY o.id
            LIMIT least($1, 10000) / 50
        ) AS c
        CROSS JOIN LATERAL (
            SELECT count(*) AS members
            FROM (SELECT FROM public.conversation_members AS m WHERE m.conversation_id = c.id LIMIT 10001) AS few
        ) AS n
        WHERE c.member_count IS NOT NULL AND n.members <= 10000
    ) AS s
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.surroundings IS 'Whether the targets, what is around them and what we made there suit a run: a row for each check, ok, warn or FAIL, with a hint. A FAIL stops runs.';
COMMENT ON FUNCTION orphan_cleaner.counter_sample IS 'Of at most so many conversations: how many have a member_count that is not the number of their members, and by how many.';
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION IF EXISTS orphan_cleaner.counter_sample, orphan_cleaner.surroundings;
-- +goose StatementBegin
DO $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_class
        WHERE oid = pg_catalog.to_regclass('public.conversation_members_user_id') AND reloptions @> '{deduplicate_items=on}'
    ) THEN
        ALTER INDEX public.conversation_members_user_id RENAME TO orphan_cleaner_members_user_id;
    END IF;
END
$$;
-- +goose StatementEnd
DROP INDEX CONCURRENTLY IF EXISTS public.orphan_cleaner_members_user_id;
