SELECT
    (SELECT count(*) FROM conversation_members_audit WHERE run_id IS NOT NULL) AS audited,
    (SELECT count(*) FROM conversation_members_backup) AS backed_up
