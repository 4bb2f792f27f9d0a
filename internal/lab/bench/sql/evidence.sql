-- Of the floor both are 0: a trigger that was left on would be charged to it.
SELECT
    (SELECT count(*) FROM public.conversation_members_audit) AS audited,
    (SELECT count(*) FROM public.conversation_members_backup) AS backed_up
