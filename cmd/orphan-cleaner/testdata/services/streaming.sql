-- A streaming service's tables, as an application would have them.
CREATE TYPE public.stream_state AS ENUM ('live', 'ended');

CREATE TABLE public.streams (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    broadcaster_id uuid NOT NULL,
    title text NOT NULL,
    state public.stream_state NOT NULL DEFAULT 'live',
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    CONSTRAINT streams_pkey PRIMARY KEY (id)
);

CREATE TABLE public.stream_keys (
    user_id uuid NOT NULL,
    key_hash bytea NOT NULL,
    CONSTRAINT stream_keys_pkey PRIMARY KEY (user_id, key_hash)
);

-- Of visitors without an account, too.
CREATE TABLE public.viewer_sessions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    stream_id uuid NOT NULL,
    viewer_id uuid,
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    seconds integer GENERATED ALWAYS AS (extract(epoch FROM left_at - joined_at)::integer) STORED,
    CONSTRAINT viewer_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT viewer_sessions_stream_id_fkey FOREIGN KEY (stream_id) REFERENCES public.streams (id) ON DELETE CASCADE
);

INSERT INTO public.streams (id, broadcaster_id, title, state, started_at, ended_at)
SELECT md5('stream ' || n)::uuid, md5('user ' || n)::uuid, 'it''s ' || n, CASE WHEN n % 4 = 0 THEN 'ended' ELSE 'live' END::public.stream_state,
    now() - CASE WHEN n % 7 = 0 THEN interval '3 days' ELSE interval '100 days' END, CASE WHEN n % 4 = 0 THEN now() END
FROM generate_series(1, 300) AS n;

INSERT INTO public.stream_keys (user_id, key_hash)
SELECT md5('user ' || n)::uuid, decode(md5(n || ' ' || k), 'hex')
FROM generate_series(1, 300) AS n, generate_series(1, 2) AS k;

INSERT INTO public.viewer_sessions (stream_id, viewer_id, joined_at, left_at)
SELECT md5('stream ' || n)::uuid, CASE WHEN n % 5 > 0 THEN md5('user ' || n)::uuid END, j.at, CASE WHEN n % 3 > 0 THEN j.at + interval '10 minutes' END
FROM generate_series(1, 300) AS n, (VALUES (now() - interval '100 days'), (now() - interval '3 days')) AS j (at);
