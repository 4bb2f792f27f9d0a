-- Made ready before anybody joins. Every step updates the same timestamps in place: pages have room for that, and the
-- statistics are kept by hand.
ALTER TABLE public.conversation_members SET (fillfactor = 40, autovacuum_enabled = false);

CREATE UNLOGGED TABLE public.simulated_users (
    user_id uuid NOT NULL,
    is_alive boolean NOT NULL DEFAULT true,
    -- Reads a message so often, shifted by so much; null: never.
    reads_every integer,
    reads_shift integer NOT NULL,
    -- Dead, and its session reads on for half an hour.
    lingers boolean NOT NULL DEFAULT false,
    CONSTRAINT simulated_users_pkey PRIMARY KEY (user_id)
) WITH (fillfactor = 50);

COMMENT ON TABLE public.simulated_users IS 'Who lives in the simulated world, and reads how often (hours).';
