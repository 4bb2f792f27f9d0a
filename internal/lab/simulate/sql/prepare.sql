-- Made ready before anybody joins. Timestamps are updated in place: pages have room for that, and the statistics are kept
-- by hand.
ALTER TABLE public.conversation_members SET (fillfactor = 40, autovacuum_enabled = false);

CREATE UNLOGGED TABLE public.simulated_users (
    user_id uuid NOT NULL,
    is_alive boolean NOT NULL DEFAULT true,
    -- Reads a message so often, shifted by so much; null: never.
    reads_every integer,
    reads_shift integer NOT NULL,
    -- Dead, and its session reads on for half an hour.
    lingers boolean NOT NULL DEFAULT false,
    -- Missing now or ever: a run looks at the rows, whose timestamps move with every step. Those of all others are as they
    -- were at this hour, since nothing looks at them.
    is_watched boolean NOT NULL DEFAULT false,
    as_of integer NOT NULL,
    CONSTRAINT simulated_users_pkey PRIMARY KEY (user_id)
) WITH (fillfactor = 50);
CREATE INDEX simulated_users_watched ON public.simulated_users (user_id) WHERE is_watched;

COMMENT ON TABLE public.simulated_users IS 'Who lives in the simulated world, and reads how often (hours).';
