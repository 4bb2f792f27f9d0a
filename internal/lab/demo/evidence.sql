SELECT
    (SELECT count(*) FROM public.conversation_members) AS members_left,
    (SELECT count(*) FROM public.conversation_members_audit) AS audited,
    (SELECT count(*) FROM public.conversation_members_backup) AS backed_up
