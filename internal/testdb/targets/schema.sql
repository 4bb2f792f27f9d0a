-- A content service's tables, as an application would have them: the second and third target of tests.
CREATE TABLE public.posts (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    body text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    blog_id integer,
    part text,
    likes integer,
    CONSTRAINT posts_pkey PRIMARY KEY (id)
);

CREATE TABLE public.blogs (
    id integer NOT NULL,
    part text NOT NULL,
    "Posts" smallint,
    CONSTRAINT blogs_pkey PRIMARY KEY (part, id)
);

CREATE TABLE public.likes (
    post_id uuid NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL DEFAULT 'heart',
    CONSTRAINT likes_pkey PRIMARY KEY (post_id, user_id)
);

-- A migration's, CONCURRENTLY and in a file of its own, were this not an empty table.
CREATE INDEX likes_user_id ON public.likes (user_id);
