-- How far a pass is, for people who look at it while it runs.

ALTER TABLE public.passes ADD COLUMN due bigint NOT NULL DEFAULT 0, ADD COLUMN candidates bigint;

COMMENT ON COLUMN public.passes.due IS
    'Addresses that were due at its start or were heard of since. Some are left for a later pass.';
COMMENT ON COLUMN public.passes.candidates IS 'Candidates at its end, or as long as it runs. Null in passes of old versions.';

UPDATE public.passes SET candidates = (SELECT count(*) FROM public.candidates)
    WHERE pass = (SELECT max(pass) FROM public.passes);
