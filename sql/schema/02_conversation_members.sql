-- messaging-service's memberships: the table that is cleaned. As in production,
-- nothing indexes user_id: that index is the work of our own migration.
CREATE TABLE conversation_members (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL DEFAULT 'member',
    joined_at timestamptz NOT NULL DEFAULT now(),
    last_read_at timestamptz,
    is_muted boolean NOT NULL DEFAULT false,
    user_public_key text,
    CONSTRAINT conversation_members_pkey PRIMARY KEY (conversation_id, user_id),
    CONSTRAINT conversation_members_role_check CHECK (role IN ('member', 'admin', 'owner')),
    CONSTRAINT conversation_members_conversation_id_fkey
        FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE CASCADE
);
