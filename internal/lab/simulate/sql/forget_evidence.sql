-- The simulation is about who is deleted; the evidence of it has tests of its own.
DELETE FROM public.conversation_members_audit;
DELETE FROM public.conversation_members_backup;
