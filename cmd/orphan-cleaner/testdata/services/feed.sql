-- A feed service's experiments, as an application would have them.
CREATE TABLE public.experiments (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    created_by uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT experiments_pkey PRIMARY KEY (id)
);

CREATE TABLE public.assignments (
    experiment_id uuid NOT NULL,
    user_id uuid NOT NULL,
    variant smallint NOT NULL,
    assigned_at timestamptz NOT NULL,
    CONSTRAINT assignments_pkey PRIMARY KEY (experiment_id, user_id),
    CONSTRAINT assignments_experiment_id_fkey FOREIGN KEY (experiment_id) REFERENCES public.experiments (id)
);

CREATE TABLE public.metrics (
    experiment_id uuid NOT NULL,
    user_id uuid NOT NULL,
    metric text NOT NULL,
    day date NOT NULL,
    value double precision,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT metrics_pkey PRIMARY KEY (user_id, experiment_id, metric, day),
    CONSTRAINT metrics_assignment_fkey FOREIGN KEY (experiment_id, user_id) REFERENCES public.assignments (experiment_id, user_id) ON DELETE CASCADE
);

-- Every twentieth user has an experiment; every user is assigned to two, one of them lately where the number is a seventh, with two metrics of each.
INSERT INTO public.experiments (id, name, created_by, created_at)
SELECT md5('experiment ' || n)::uuid, 'experiment ' || n, md5('user ' || n)::uuid, now() - CASE WHEN n = 3 THEN interval '3 days' ELSE interval '100 days' END
FROM generate_series(1, 300) AS n
WHERE n < 10 OR n % 20 = 0;

INSERT INTO public.assignments (experiment_id, user_id, variant, assigned_at)
SELECT md5('experiment ' || e)::uuid, md5('user ' || n)::uuid, n % 3, now() - CASE WHEN e = 1 AND n % 7 = 0 THEN interval '3 days' ELSE interval '100 days' END
FROM generate_series(1, 300) AS n, generate_series(1, 2) AS e;

INSERT INTO public.metrics (experiment_id, user_id, metric, day, value, recorded_at)
SELECT a.experiment_id, a.user_id, m.metric, a.assigned_at::date, CASE WHEN a.variant > 0 THEN a.variant / 3.0 END, a.assigned_at
FROM public.assignments AS a, unnest(ARRAY['clicks', 'it''s "dwell"']) AS m (metric);
