-- messaging-service's deprecated shadow of auth-service's users. A later phase
-- drops it; where it still has deleted_at, it is evidence of when a user went.
CREATE TABLE users (
    id uuid NOT NULL,
    username text NOT NULL,
    public_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);
