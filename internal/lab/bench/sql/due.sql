-- The only statement of the lab on a table of ours. A run has just found the dead missing; this moves their clocks
-- back, as if it had first done so 100 days ago, so that the next run deletes their members. Nobody but the owner of
-- the ledger may do this. When the ledger changes, this has to follow.
UPDATE orphan_cleaner.candidates
SET first_missing_at = first_missing_at - interval '100 days';
