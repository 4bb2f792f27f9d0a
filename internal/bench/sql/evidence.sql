-- Of a method that is not audited both are 0: a trigger that was left on would be charged to it.
SELECT
    (SELECT count(*) FROM conversation_members_audit) AS audited,
    (SELECT count(*) FROM conversation_members_backup) AS backed_up
