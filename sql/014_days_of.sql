-- The days of one curve from a time on: history_of() reads all days, and the screen of `bitdash
-- status` shows the last 30.
CREATE FUNCTION public.days_of(dimension text, value text, since timestamptz) RETURNS TABLE (at timestamptz, nodes real)
    STABLE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH wanted AS (
        SELECT min(v.id) AS id FROM bitdash_internal.history_values v
        WHERE v.dimension = days_of.dimension AND v.value = days_of.value
            AND hashtextextended(v.value, 0) = hashtextextended(days_of.value, 0)
    )
    SELECT s.at, (coalesce(s.sums[array_position(s.ids, w.id)], 0)::real / s.passes)::real
    FROM wanted w CROSS JOIN bitdash_internal.history_steps s
    WHERE s.dimension = days_of.dimension AND s.step = 'd' AND s.at >= since
    ORDER BY s.at
$$;
COMMENT ON FUNCTION public.days_of IS 'The closed days of one curve from a time on, zeros included: the mean of each.';
