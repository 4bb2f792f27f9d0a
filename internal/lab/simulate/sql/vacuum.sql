VACUUM (ANALYZE)
    public.conversation_members, public.simulated_users, orphan_cleaner.candidates, orphan_cleaner.coverage, orphan_cleaner.hours,
    orphan_cleaner.refusals, orphan_cleaner.rechecks, orphan_cleaner.runs, orphan_cleaner.sightings, orphan_cleaner.unknowns
