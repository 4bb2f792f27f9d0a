-- messaging-service's conversations, the columns that orphan-cleaner meets.
CREATE TABLE conversations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL DEFAULT 'group',
    name text,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    member_count integer NOT NULL DEFAULT 0,
    CONSTRAINT conversations_pkey PRIMARY KEY (id)
);
