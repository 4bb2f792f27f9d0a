-- $1 users are written into the ledger by hand, as missing for 40 days.
INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
SELECT u.user_id, now() - interval '40 days', now(), 1, 40, 'sightings'
FROM unnest($1::uuid []) AS u (user_id)
ON CONFLICT DO NOTHING
