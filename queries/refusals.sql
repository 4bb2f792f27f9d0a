-- name: RefusalStore :one
-- Keeps the users that a refused run found due: what an approval of it would be about.
-- Locks: ROW EXCLUSIVE on orphan_refusals. Index: orphan_sightings_pkey. Rows: the due users.
WITH stored AS (
    INSERT INTO orphan_refusals (run_id, user_id)
    SELECT s.run_id, s.user_id
    FROM orphan_sightings AS s
    LEFT JOIN orphan_candidates AS c ON c.user_id = s.user_id
    LEFT JOIN orphan_shadow_evidence(
        ARRAY(SELECT x.user_id FROM orphan_sightings AS x WHERE x.run_id = @run_id AND x.verdict = 'missing')
    ) AS e ON e.user_id = s.user_id
    WHERE s.run_id = @run_id
        AND s.verdict = 'missing'
        AND orphan_clock_start(c.first_missing_at, c.last_missing_at, e.deleted_at, @max_gap::interval)
            <= now() - @retention::interval
    RETURNING user_id
)
SELECT count(*)
FROM stored;
