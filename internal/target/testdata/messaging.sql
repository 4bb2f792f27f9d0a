-- The tables of a messaging-service that has grown: fourteen references to users beside
-- conversation_members, and columns that are none. Users 1 to 40 are in the shadow table.
INSERT INTO public.users (id, username) SELECT md5('user ' || n)::uuid, 'user ' || n FROM generate_series(1, 40) AS n;
INSERT INTO public.conversations (id) SELECT md5('conversation ' || n)::uuid FROM generate_series(1, 5) AS n;
INSERT INTO public.conversation_members (conversation_id, user_id)
SELECT md5('conversation ' || n % 5 + 1)::uuid, md5('user ' || n)::uuid FROM generate_series(1, 60) AS n;

CREATE SCHEMA content;
CREATE SCHEMA streaming;
CREATE TABLE public.messages (
    id uuid PRIMARY KEY, conversation_id uuid NOT NULL REFERENCES public.conversations (id) ON DELETE CASCADE,
    sender_id uuid NOT NULL, body text, metadata jsonb, created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz
);
CREATE TABLE public.message_reactions (
    message_id uuid NOT NULL REFERENCES public.messages (id), user_id uuid NOT NULL, emoji text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (message_id, user_id, emoji)
);
CREATE TABLE public.message_read_receipts (message_id uuid NOT NULL, "userId" uuid NOT NULL, read_at timestamptz, PRIMARY KEY (message_id, "userId"));
CREATE TABLE content.posts (
    id uuid PRIMARY KEY, author_id uuid NOT NULL, author text, moderated_by uuid, body text, created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz
);
CREATE TABLE content.comments (id uuid PRIMARY KEY, post_id uuid NOT NULL, user_id uuid NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE content.likes (post_id uuid NOT NULL, user_id uuid NOT NULL, created_at timestamptz NOT NULL, PRIMARY KEY (post_id, user_id));
CREATE TABLE content.bookmarks (post_id uuid NOT NULL, user_id varchar(36) NOT NULL, PRIMARY KEY (post_id, user_id));
CREATE TABLE content.shares (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, post_id uuid, shared_by uuid NOT NULL, at timestamptz);
CREATE TABLE content.polls (id uuid PRIMARY KEY, question text, picked uuid [] NOT NULL);
CREATE TABLE streaming.streams (id uuid PRIMARY KEY, title text, host text);
CREATE TABLE streaming.viewer_sessions (
    id uuid NOT NULL, viewer_id uuid, started_at timestamptz NOT NULL, PRIMARY KEY (id, started_at)
) PARTITION BY RANGE (started_at);
CREATE TABLE streaming.viewer_sessions_old PARTITION OF streaming.viewer_sessions DEFAULT;
CREATE TABLE streaming.stream_keys (key text PRIMARY KEY, holder uuid REFERENCES public.users (id));
CREATE DOMAIN public.identity AS uuid;
CREATE TABLE public.experiment_assignments (experiment uuid, unit public.identity, PRIMARY KEY (experiment, unit));
CREATE TABLE public.metrics (name text, subject uuid, value numeric, user_count bigint, user_id_hash bytea);

INSERT INTO public.messages (id, conversation_id, sender_id)
SELECT md5('message ' || n)::uuid, md5('conversation ' || n % 5 + 1)::uuid, md5('user ' || n)::uuid FROM generate_series(1, 80) AS n;
INSERT INTO content.posts (id, author_id, author) SELECT md5('post ' || n)::uuid, md5('user ' || n)::uuid, 'Somebody' FROM generate_series(1, 10) AS n;
INSERT INTO content.bookmarks SELECT md5('post ' || n)::uuid, upper(md5('user ' || n)::uuid::text) FROM generate_series(1, 10) AS n;
INSERT INTO content.polls SELECT md5('poll')::uuid, 'Tea?', array_agg(md5('user ' || n)::uuid) FROM generate_series(51, 70) AS n;
INSERT INTO public.experiment_assignments SELECT md5('experiment')::uuid, md5('user ' || n)::uuid FROM generate_series(1, 30) AS n;
INSERT INTO public.metrics (subject) SELECT md5('user ' || n)::uuid FROM generate_series(31, 130) AS n;
INSERT INTO streaming.viewer_sessions SELECT md5('session ' || n)::uuid, md5('user ' || n)::uuid, now() FROM generate_series(1, 20) AS n;
ANALYZE;

CREATE VIEW public.active_users AS SELECT user_id FROM public.conversation_members;
