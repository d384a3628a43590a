SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.agent_sequences (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    counted text NOT NULL COLLATE pg_catalog."C",
    first_stored_at timestamp with time zone NOT NULL,
    last_stored_at timestamp with time zone NOT NULL,
    identity_conflicts bigint NOT NULL,
    CONSTRAINT agent_sequences_counted CHECK ((counted = ANY (ARRAY['events'::text, 'samples'::text, 'rates'::text]))),
    CONSTRAINT agent_sequences_range CHECK ((((first_seq >= 1) AND (first_seq <= last_seq)) AND (identity_conflicts >= 0)))
)
WITH (fillfactor='70');
CREATE TABLE public.agent_state (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    state text NOT NULL,
    version text,
    clock_synced boolean,
    last_started_at timestamp with time zone,
    CONSTRAINT agent_state_state CHECK ((state = ANY (ARRAY['running'::text, 'stopped'::text])))
)
WITH (fillfactor='70');
CREATE TABLE public.dead_letters (
    kafka_cluster text NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    topic_generation integer NOT NULL,
    kafka_offset bigint NOT NULL,
    kafka_timestamp timestamp with time zone,
    headers bytea,
    key bytea,
    payload bytea,
    bytes bigint,
    error text NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    agent text COLLATE pg_catalog."C",
    epoch text COLLATE pg_catalog."C",
    seq bigint,
    dropped_at timestamp with time zone,
    drop_reason text,
    CONSTRAINT dead_letters_dropped CHECK (((dropped_at IS NULL) = (drop_reason IS NULL))),
    CONSTRAINT dead_letters_place CHECK (((kafka_partition >= 0) AND (kafka_offset >= 0) AND (topic_generation >= 0) AND (bytes >= 0)))
);
CREATE TABLE public.kafka_gaps (
    kafka_cluster text NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    topic_generation integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    cause text NOT NULL,
    noticed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT kafka_gaps_cause CHECK ((cause = ANY (ARRAY['expired'::text, 'unreadable'::text, 'expired_before_start'::text, 'skipped_at_start'::text]))),
    CONSTRAINT kafka_gaps_range CHECK (((first_offset >= 0) AND (first_offset <= last_offset)))
);
CREATE TABLE public.losses (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    loss_epoch text NOT NULL COLLATE pg_catalog."C",
    loss_seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    detail text,
    CONSTRAINT losses_range CHECK (((first_seq >= 1) AND (first_seq <= last_seq)))
);
CREATE VIEW public.sequence_gaps AS
 SELECT ranges.agent,
    ranges.epoch,
    (ranges.before + 1) AS first_seq,
    (ranges.first_seq - 1) AS last_seq,
    ((ranges.first_seq - 1) - ranges.before) AS missing,
    ranges.since
   FROM ( SELECT known.agent,
            known.epoch,
            known.first_seq,
            known.since,
            known.counted,
            COALESCE(max(known.last_seq) OVER (PARTITION BY known.agent, known.epoch ORDER BY known.first_seq, known.last_seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), (0)::bigint) AS before
           FROM ( SELECT agent_sequences.agent,
                    agent_sequences.epoch,
                    agent_sequences.first_seq,
                    agent_sequences.last_seq,
                    agent_sequences.first_stored_at AS since,
                    agent_sequences.counted
                   FROM public.agent_sequences
                UNION ALL
                 SELECT losses.agent,
                    losses.epoch,
                    losses.first_seq,
                    losses.last_seq,
                    losses.stored_at,
                    'events'::text
                   FROM public.losses
                UNION ALL
                 SELECT dead_letters.agent,
                    dead_letters.epoch,
                    dead_letters.seq,
                    dead_letters.seq,
                    dead_letters.stored_at,
                    'events'::text
                   FROM public.dead_letters
                  WHERE ((dead_letters.agent IS NOT NULL) AND (dead_letters.seq IS NOT NULL))) known) ranges
  WHERE (((ranges.first_seq - 1) > ranges.before) AND (ranges.since < (now() - '00:05:00'::interval)) AND ((ranges.before > 0) OR (NOT (EXISTS ( SELECT
           FROM (public.kafka_gaps g
             JOIN public.agent_sequences h ON ((h.agent = ranges.agent)))
          WHERE ((g.cause = ANY (ARRAY['expired_before_start'::text, 'skipped_at_start'::text])) AND (g.noticed_at <= ranges.since) AND (h.first_stored_at < (g.noticed_at + '37 days'::interval)))))) OR (EXISTS ( SELECT
           FROM public.agent_sequences o
          WHERE ((o.agent = ranges.agent) AND (o.epoch <> ranges.epoch) AND (o.counted = ranges.counted) AND (o.first_stored_at < ranges.since))))));
CREATE VIEW public.missing_events AS
 SELECT declared.agent,
    declared.epoch,
    declared.first_seq,
        CASE
            WHEN declared.is_open THEN NULL::bigint
            ELSE declared.last_seq
        END AS last_seq,
        CASE
            WHEN declared.is_open THEN NULL::bigint
            ELSE declared.missing
        END AS missing,
    'declared'::text AS cause,
    declared.reason,
    declared.detail,
    declared.stored_at AS noticed_at
   FROM ( SELECT l.agent,
            l.epoch,
            l.first_seq,
            l.last_seq,
            l.reason,
            l.detail,
            l.stored_at,
            ((l.reason = 'interrupted'::text) AND (l.last_seq = '281474976710656'::bigint)) AS is_open,
            (((l.last_seq - l.first_seq) + 1) - (COALESCE(( SELECT sum(((LEAST(s.last_seq, l.last_seq) - GREATEST(s.first_seq, l.first_seq)) + 1)) AS sum
                   FROM public.agent_sequences s
                  WHERE ((s.agent = l.agent) AND (s.epoch = l.epoch) AND (s.first_seq <= l.last_seq) AND (s.last_seq >= l.first_seq) AND (s.first_seq >= COALESCE(( SELECT max(p.first_seq) AS max
                           FROM public.agent_sequences p
                          WHERE ((p.agent = l.agent) AND (p.epoch = l.epoch) AND (p.first_seq <= l.first_seq))), (0)::bigint)))), (0)::numeric))::bigint) AS missing
           FROM ( SELECT declared_1.agent,
                    declared_1.epoch,
                    (GREATEST((declared_1.first_seq - 1), declared_1.before) + 1) AS first_seq,
                    declared_1.last_seq,
                    declared_1.reason,
                    declared_1.detail,
                    declared_1.stored_at
                   FROM ( SELECT losses.agent,
                            losses.epoch,
                            losses.first_seq,
                            losses.last_seq,
                            losses.loss_epoch,
                            losses.loss_seq,
                            losses.observed_at,
                            losses.stored_at,
                            losses.reason,
                            losses.detail,
                            COALESCE(max(losses.last_seq) OVER (PARTITION BY losses.agent, losses.epoch ORDER BY losses.first_seq, losses.stored_at, losses.loss_seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), (0)::bigint) AS before
                           FROM public.losses) declared_1
                  WHERE (declared_1.last_seq > declared_1.before)) l) declared
  WHERE (declared.missing > 0)
UNION ALL
 SELECT d.agent,
    d.epoch,
    d.seq AS first_seq,
    d.seq AS last_seq,
    1 AS missing,
        CASE
            WHEN (d.dropped_at IS NULL) THEN 'dead_letter'::text
            ELSE 'discarded'::text
        END AS cause,
    d.drop_reason AS reason,
    d.error AS detail,
    d.stored_at AS noticed_at
   FROM public.dead_letters d
  WHERE ((d.agent IS NOT NULL) AND ((d.seq IS NULL) OR (COALESCE(( SELECT s.last_seq
           FROM public.agent_sequences s
          WHERE ((s.agent = d.agent) AND (s.epoch = d.epoch) AND (s.first_seq <= d.seq))
          ORDER BY s.first_seq DESC
         LIMIT 1), (0)::bigint) < d.seq)) AND (NOT (EXISTS ( SELECT
           FROM public.losses l
          WHERE ((l.agent = d.agent) AND (l.epoch = d.epoch) AND ((d.seq >= l.first_seq) AND (d.seq <= l.last_seq)))))) AND (NOT (EXISTS ( SELECT
           FROM public.dead_letters e
          WHERE ((e.agent = d.agent) AND (e.epoch = d.epoch) AND (e.seq = d.seq) AND (ROW(e.kafka_cluster, e.kafka_topic, e.kafka_partition, e.topic_generation, e.kafka_offset) < ROW(d.kafka_cluster, d.kafka_topic, d.kafka_partition, d.topic_generation, d.kafka_offset)))))))
UNION ALL
 SELECT sequence_gaps.agent,
    sequence_gaps.epoch,
    sequence_gaps.first_seq,
    sequence_gaps.last_seq,
    sequence_gaps.missing,
    'undeclared'::text AS cause,
    NULL::text AS reason,
    'never arrived'::text AS detail,
    sequence_gaps.since AS noticed_at
   FROM public.sequence_gaps;
CREATE TABLE public.settings (
    only_row boolean DEFAULT true NOT NULL,
    silent_after interval NOT NULL,
    CONSTRAINT settings_only_row CHECK (only_row)
);
CREATE VIEW public.agents AS
 SELECT h.agent,
    h.last_heard_at,
    a.version,
        CASE
            WHEN (a.state = 'stopped'::text) THEN 'stopped'::text
            WHEN (h.last_heard_at < (now() - ( SELECT settings.silent_after
               FROM public.settings))) THEN 'silent'::text
            ELSE 'running'::text
        END AS state,
    a.clock_synced,
    h.epoch,
    COALESCE(m.missing, (0)::bigint) AS missing_events,
    a.last_started_at
   FROM ((( SELECT agent_sequences.agent,
            max(agent_sequences.last_stored_at) AS last_heard_at,
            (array_agg(agent_sequences.epoch ORDER BY agent_sequences.last_stored_at DESC, agent_sequences.first_stored_at DESC) FILTER (WHERE (agent_sequences.counted = 'events'::text)))[1] AS epoch
           FROM public.agent_sequences
          WHERE (agent_sequences.counted <> 'samples'::text)
          GROUP BY agent_sequences.agent) h
     LEFT JOIN public.agent_state a ON ((a.agent = h.agent)))
     LEFT JOIN ( SELECT missing_events.agent,
            (LEAST(COALESCE(sum(missing_events.missing), (0)::numeric), ('9223372036854775807'::bigint)::numeric))::bigint AS missing
           FROM public.missing_events
          GROUP BY missing_events.agent) m ON ((m.agent = h.agent)));
CREATE TABLE public.breach_state (
    agent text NOT NULL COLLATE pg_catalog."C",
    breach_id text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    state text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    raised_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    limit_name text NOT NULL COLLATE pg_catalog."C",
    severity text NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    limit_bps bigint NOT NULL,
    rate_bps bigint NOT NULL,
    peak_bps bigint NOT NULL,
    mean_bps bigint NOT NULL,
    duration_ms bigint NOT NULL,
    measured_ms bigint NOT NULL,
    excess_bytes bigint NOT NULL,
    reason text,
    detail text,
    counted_bytes bigint NOT NULL,
    CONSTRAINT breach_state_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT breach_state_figures CHECK (((duration_ms >= 0) AND (measured_ms >= 0) AND (excess_bytes >= 0) AND (counted_bytes >= 0))),
    CONSTRAINT breach_state_severity CHECK ((severity = ANY (ARRAY['warning'::text, 'critical'::text]))),
    CONSTRAINT breach_state_state CHECK ((state = ANY (ARRAY['open'::text, 'cleared'::text])))
)
WITH (fillfactor='70');
CREATE TABLE public.events (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    boot_id text NOT NULL,
    monotonic_ms bigint NOT NULL,
    clock_synced boolean,
    breach_id text,
    started_at timestamp with time zone,
    raised_at timestamp with time zone,
    ended_at timestamp with time zone,
    limit_name text,
    severity text,
    interface text,
    ifindex bigint,
    direction text,
    limit_bps bigint,
    rate_bps bigint,
    peak_bps bigint,
    mean_bps bigint,
    duration_ms bigint,
    measured_ms bigint,
    excess_bytes bigint,
    speed_bps bigint,
    lost_epoch text,
    ranges jsonb,
    version text,
    reason text,
    detail text,
    raw text,
    CONSTRAINT events_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT events_figures CHECK (((limit_bps >= 0) AND (rate_bps >= 0) AND (peak_bps >= 0) AND (mean_bps >= 0) AND (duration_ms >= 0) AND (measured_ms >= 0) AND (excess_bytes >= 0))),
    CONSTRAINT events_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0))),
    CONSTRAINT events_severity CHECK ((severity = ANY (ARRAY['warning'::text, 'critical'::text])))
)
PARTITION BY RANGE (observed_at);
CREATE VIEW public.breaches AS
 SELECT arms.agent,
    arms.breach_id,
    arms.limit_name,
    arms.severity,
    arms.interface,
    arms.direction,
    arms.state,
    arms.started_at,
    arms.raised_at,
    arms.ended_at,
    arms.cleared_at,
    arms.lasted,
    arms.limit_bps,
    arms.rate_bps,
    arms.peak_bps,
    arms.mean_bps,
    arms.excess_bytes,
    arms.duration_ms,
    arms.measured_ms,
    arms.last_observed_at,
    arms.reason,
    arms.detail
   FROM ( SELECT b.agent,
            b.breach_id,
            b.limit_name,
            b.severity,
            b.interface,
            b.direction,
            'cleared'::text AS state,
            b.started_at,
            b.raised_at,
            b.ended_at,
            b.observed_at AS cleared_at,
            make_interval(secs => (((LEAST(b.duration_ms, '9000000000000000'::bigint))::numeric / 1000.0))::double precision) AS lasted,
            b.limit_bps,
            b.rate_bps,
            b.peak_bps,
            b.mean_bps,
            b.excess_bytes,
            b.duration_ms,
            b.measured_ms,
            b.observed_at AS last_observed_at,
            b.reason,
            b.detail,
            b.state AS stored_state,
            'cleared'::text AS arm
           FROM public.breach_state b
        UNION ALL
         SELECT b.agent,
            b.breach_id,
            b.limit_name,
            b.severity,
            b.interface,
            b.direction,
                CASE
                    WHEN b.is_unknown THEN 'unknown'::text
                    ELSE 'open'::text
                END AS "case",
            b.started_at,
            b.raised_at,
            b.ended_at,
            NULL::timestamp with time zone,
                CASE
                    WHEN b.is_unknown THEN GREATEST((b.observed_at - b.started_at), make_interval(secs => (((LEAST(b.duration_ms, '9000000000000000'::bigint))::numeric / 1000.0))::double precision))
                    ELSE GREATEST((now() - b.started_at), '00:00:00'::interval)
                END AS "greatest",
            b.limit_bps,
            b.rate_bps,
            b.peak_bps,
            b.mean_bps,
            b.excess_bytes,
            b.duration_ms,
            b.measured_ms,
            b.observed_at,
            b.reason,
            b.detail,
            b.state,
            'open'::text
           FROM ( SELECT o.agent,
                    o.breach_id,
                    o.epoch,
                    o.seq,
                    o.observed_at,
                    o.stored_at,
                    o.state,
                    o.started_at,
                    o.raised_at,
                    o.ended_at,
                    o.limit_name,
                    o.severity,
                    o.interface,
                    o.direction,
                    o.limit_bps,
                    o.rate_bps,
                    o.peak_bps,
                    o.mean_bps,
                    o.duration_ms,
                    o.measured_ms,
                    o.excess_bytes,
                    o.reason,
                    o.detail,
                    o.counted_bytes,
                    ((EXISTS ( SELECT
                           FROM public.agent_state a
                          WHERE ((a.agent = o.agent) AND ((a.state = 'stopped'::text) OR ((a.epoch <> o.epoch) AND (a.last_started_at > o.observed_at)))))) OR (NOT (EXISTS ( SELECT
                           FROM public.agent_sequences s
                          WHERE ((s.agent = o.agent) AND (s.counted <> 'samples'::text) AND (s.last_stored_at >= (now() - ( SELECT settings.silent_after
                                   FROM public.settings))))))) OR (EXISTS ( SELECT
                           FROM public.agent_sequences s
                          WHERE ((s.agent = o.agent) AND (s.epoch <> o.epoch) AND (s.counted = 'events'::text) AND (s.first_stored_at >= o.stored_at) AND ((s.first_stored_at > o.stored_at) OR (EXISTS ( SELECT
                                   FROM public.events e
                                  WHERE ((e.agent = o.agent) AND (e.epoch = s.epoch) AND (e.observed_at > o.observed_at))))))))) AS is_unknown
                   FROM public.breach_state o) b) arms
  WHERE (arms.stored_state = arms.arm);
CREATE TABLE public.events_20261101 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    boot_id text NOT NULL,
    monotonic_ms bigint NOT NULL,
    clock_synced boolean,
    breach_id text,
    started_at timestamp with time zone,
    raised_at timestamp with time zone,
    ended_at timestamp with time zone,
    limit_name text,
    severity text,
    interface text,
    ifindex bigint,
    direction text,
    limit_bps bigint,
    rate_bps bigint,
    peak_bps bigint,
    mean_bps bigint,
    duration_ms bigint,
    measured_ms bigint,
    excess_bytes bigint,
    speed_bps bigint,
    lost_epoch text,
    ranges jsonb,
    version text,
    reason text,
    detail text,
    raw text,
    CONSTRAINT events_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT events_figures CHECK (((limit_bps >= 0) AND (rate_bps >= 0) AND (peak_bps >= 0) AND (mean_bps >= 0) AND (duration_ms >= 0) AND (measured_ms >= 0) AND (excess_bytes >= 0))),
    CONSTRAINT events_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0))),
    CONSTRAINT events_severity CHECK ((severity = ANY (ARRAY['warning'::text, 'critical'::text])))
);
CREATE TABLE public.events_after_2100 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    boot_id text NOT NULL,
    monotonic_ms bigint NOT NULL,
    clock_synced boolean,
    breach_id text,
    started_at timestamp with time zone,
    raised_at timestamp with time zone,
    ended_at timestamp with time zone,
    limit_name text,
    severity text,
    interface text,
    ifindex bigint,
    direction text,
    limit_bps bigint,
    rate_bps bigint,
    peak_bps bigint,
    mean_bps bigint,
    duration_ms bigint,
    measured_ms bigint,
    excess_bytes bigint,
    speed_bps bigint,
    lost_epoch text,
    ranges jsonb,
    version text,
    reason text,
    detail text,
    raw text,
    CONSTRAINT events_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT events_figures CHECK (((limit_bps >= 0) AND (rate_bps >= 0) AND (peak_bps >= 0) AND (mean_bps >= 0) AND (duration_ms >= 0) AND (measured_ms >= 0) AND (excess_bytes >= 0))),
    CONSTRAINT events_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0))),
    CONSTRAINT events_severity CHECK ((severity = ANY (ARRAY['warning'::text, 'critical'::text])))
);
CREATE TABLE public.events_before_2020 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    boot_id text NOT NULL,
    monotonic_ms bigint NOT NULL,
    clock_synced boolean,
    breach_id text,
    started_at timestamp with time zone,
    raised_at timestamp with time zone,
    ended_at timestamp with time zone,
    limit_name text,
    severity text,
    interface text,
    ifindex bigint,
    direction text,
    limit_bps bigint,
    rate_bps bigint,
    peak_bps bigint,
    mean_bps bigint,
    duration_ms bigint,
    measured_ms bigint,
    excess_bytes bigint,
    speed_bps bigint,
    lost_epoch text,
    ranges jsonb,
    version text,
    reason text,
    detail text,
    raw text,
    CONSTRAINT events_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT events_figures CHECK (((limit_bps >= 0) AND (rate_bps >= 0) AND (peak_bps >= 0) AND (mean_bps >= 0) AND (duration_ms >= 0) AND (measured_ms >= 0) AND (excess_bytes >= 0))),
    CONSTRAINT events_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0))),
    CONSTRAINT events_severity CHECK ((severity = ANY (ARRAY['warning'::text, 'critical'::text])))
);
CREATE TABLE public.highwater_migrations (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
CREATE TABLE public.histograms (
    agent text NOT NULL COLLATE pg_catalog."C",
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    span text NOT NULL COLLATE pg_catalog."C",
    starts_at timestamp with time zone NOT NULL,
    windows bigint NOT NULL,
    late_windows bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint,
    errors bigint,
    drops bigint,
    measured_s bigint NOT NULL,
    unmeasured_s bigint NOT NULL,
    min_bps bigint,
    mean_bps bigint,
    max_bps bigint,
    p50_bps bigint,
    p95_bps bigint,
    p99_bps bigint,
    histogram bytea,
    version bigint NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    published_version bigint,
    CONSTRAINT histograms_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT histograms_span CHECK ((span = ANY (ARRAY['hour'::text, 'day'::text])))
)
WITH (fillfactor='70');
ALTER TABLE ONLY public.histograms ALTER COLUMN histogram SET STORAGE EXTERNAL;
CREATE TABLE public.kafka_offsets (
    kafka_cluster text NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    topic_generation integer NOT NULL,
    next_offset bigint NOT NULL,
    last_offset bigint,
    last_timestamp bigint,
    last_digest bigint,
    anchor_offset bigint,
    anchor_timestamp bigint,
    anchor_digest bigint,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT kafka_offsets_next CHECK (((kafka_partition >= 0) AND (next_offset >= 0) AND (topic_generation >= 0)))
)
WITH (fillfactor='50');
CREATE VIEW public.open_breaches AS
 SELECT breaches.agent,
    breaches.breach_id,
    breaches.limit_name,
    breaches.severity,
    breaches.interface,
    breaches.direction,
    breaches.started_at,
    breaches.raised_at,
    breaches.ended_at,
    breaches.lasted,
    breaches.limit_bps,
    breaches.rate_bps,
    breaches.peak_bps,
    breaches.mean_bps,
    breaches.excess_bytes,
    breaches.duration_ms,
    breaches.measured_ms,
    breaches.last_observed_at,
    breaches.detail
   FROM public.breaches
  WHERE (breaches.state = 'open'::text);
CREATE TABLE public.partition_notes (
    partition text NOT NULL,
    newest_stored_at timestamp with time zone NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL,
    outside boolean NOT NULL,
    detaching_since timestamp with time zone
);
CREATE TABLE public.rates (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    window_ms bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint,
    errors bigint,
    drops bigint,
    measured_s bigint NOT NULL,
    unmeasured_s bigint NOT NULL,
    min_bps bigint,
    mean_bps bigint,
    max_bps bigint,
    p50_bps bigint,
    p95_bps bigint,
    p99_bps bigint,
    speed_bps bigint,
    over jsonb NOT NULL,
    has_histogram boolean NOT NULL,
    CONSTRAINT rates_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT rates_figures CHECK ((((window_ms >= 1) AND (window_ms <= 3600000)) AND (bytes >= 0) AND (measured_s >= 0) AND (unmeasured_s >= 0))),
    CONSTRAINT rates_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
)
PARTITION BY RANGE (observed_at);
CREATE TABLE public.rates_20261116 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    window_ms bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint,
    errors bigint,
    drops bigint,
    measured_s bigint NOT NULL,
    unmeasured_s bigint NOT NULL,
    min_bps bigint,
    mean_bps bigint,
    max_bps bigint,
    p50_bps bigint,
    p95_bps bigint,
    p99_bps bigint,
    speed_bps bigint,
    over jsonb NOT NULL,
    has_histogram boolean NOT NULL,
    CONSTRAINT rates_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT rates_figures CHECK ((((window_ms >= 1) AND (window_ms <= 3600000)) AND (bytes >= 0) AND (measured_s >= 0) AND (unmeasured_s >= 0))),
    CONSTRAINT rates_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.rates_after_2100 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    window_ms bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint,
    errors bigint,
    drops bigint,
    measured_s bigint NOT NULL,
    unmeasured_s bigint NOT NULL,
    min_bps bigint,
    mean_bps bigint,
    max_bps bigint,
    p50_bps bigint,
    p95_bps bigint,
    p99_bps bigint,
    speed_bps bigint,
    over jsonb NOT NULL,
    has_histogram boolean NOT NULL,
    CONSTRAINT rates_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT rates_figures CHECK ((((window_ms >= 1) AND (window_ms <= 3600000)) AND (bytes >= 0) AND (measured_s >= 0) AND (unmeasured_s >= 0))),
    CONSTRAINT rates_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.rates_before_2020 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    window_ms bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint,
    errors bigint,
    drops bigint,
    measured_s bigint NOT NULL,
    unmeasured_s bigint NOT NULL,
    min_bps bigint,
    mean_bps bigint,
    max_bps bigint,
    p50_bps bigint,
    p95_bps bigint,
    p99_bps bigint,
    speed_bps bigint,
    over jsonb NOT NULL,
    has_histogram boolean NOT NULL,
    CONSTRAINT rates_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT rates_figures CHECK ((((window_ms >= 1) AND (window_ms <= 3600000)) AND (bytes >= 0) AND (measured_s >= 0) AND (unmeasured_s >= 0))),
    CONSTRAINT rates_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.samples (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL,
    duration_ms bigint,
    rx_bytes bigint,
    tx_bytes bigint,
    rx_bps bigint,
    tx_bps bigint,
    reason text,
    CONSTRAINT samples_figures CHECK (((rx_bytes >= 0) AND (tx_bytes >= 0) AND (rx_bps >= 0) AND (tx_bps >= 0) AND (duration_ms >= 0))),
    CONSTRAINT samples_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
)
PARTITION BY RANGE (observed_at);
CREATE TABLE public.samples_20261116 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL,
    duration_ms bigint,
    rx_bytes bigint,
    tx_bytes bigint,
    rx_bps bigint,
    tx_bps bigint,
    reason text,
    CONSTRAINT samples_figures CHECK (((rx_bytes >= 0) AND (tx_bytes >= 0) AND (rx_bps >= 0) AND (tx_bps >= 0) AND (duration_ms >= 0))),
    CONSTRAINT samples_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.samples_after_2100 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL,
    duration_ms bigint,
    rx_bytes bigint,
    tx_bytes bigint,
    rx_bps bigint,
    tx_bps bigint,
    reason text,
    CONSTRAINT samples_figures CHECK (((rx_bytes >= 0) AND (tx_bytes >= 0) AND (rx_bps >= 0) AND (tx_bps >= 0) AND (duration_ms >= 0))),
    CONSTRAINT samples_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.samples_before_2020 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    kafka_topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    interface text NOT NULL,
    duration_ms bigint,
    rx_bytes bigint,
    tx_bytes bigint,
    rx_bps bigint,
    tx_bps bigint,
    reason text,
    CONSTRAINT samples_figures CHECK (((rx_bytes >= 0) AND (tx_bytes >= 0) AND (rx_bps >= 0) AND (tx_bps >= 0) AND (duration_ms >= 0))),
    CONSTRAINT samples_place CHECK (((seq > 0) AND (kafka_partition >= 0) AND (kafka_offset >= 0)))
);
CREATE TABLE public.totals (
    agent text NOT NULL COLLATE pg_catalog."C",
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    limit_name text NOT NULL COLLATE pg_catalog."C",
    day date NOT NULL,
    scope text GENERATED ALWAYS AS (
CASE interface
    WHEN '*'::text THEN 'host'::text
    ELSE 'link'::text
END) STORED,
    breaches bigint NOT NULL,
    excess_bytes bigint NOT NULL,
    CONSTRAINT totals_direction CHECK ((direction = ANY (ARRAY['rx'::text, 'tx'::text, 'total'::text]))),
    CONSTRAINT totals_figures CHECK (((breaches >= 0) AND (excess_bytes >= 0)))
)
WITH (fillfactor='70');
CREATE TABLE public.touched_hours (
    id bigint NOT NULL,
    agent text NOT NULL COLLATE pg_catalog."C",
    starts_at timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000');
ALTER TABLE public.touched_hours ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.touched_hours_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.unpublished_hours (
    agent text NOT NULL COLLATE pg_catalog."C",
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    starts_at timestamp with time zone NOT NULL
);
CREATE TABLE public.window_histograms (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    histogram bytea NOT NULL
)
PARTITION BY RANGE (observed_at);
ALTER TABLE ONLY public.window_histograms ALTER COLUMN histogram SET STORAGE EXTERNAL;
CREATE TABLE public.window_histograms_20261116 (
    agent text NOT NULL COLLATE pg_catalog."C",
    epoch text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    interface text NOT NULL COLLATE pg_catalog."C",
    direction text NOT NULL COLLATE pg_catalog."C",
    histogram bytea NOT NULL
);
ALTER TABLE ONLY public.window_histograms_20261116 ALTER COLUMN histogram SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261101 FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY public.events ATTACH PARTITION public.events_after_2100 FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
ALTER TABLE ONLY public.events ATTACH PARTITION public.events_before_2020 FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
ALTER TABLE ONLY public.rates ATTACH PARTITION public.rates_20261116 FOR VALUES FROM ('2026-11-16 00:00:00+00') TO ('2026-11-23 00:00:00+00');
ALTER TABLE ONLY public.rates ATTACH PARTITION public.rates_after_2100 FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
ALTER TABLE ONLY public.rates ATTACH PARTITION public.rates_before_2020 FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
ALTER TABLE ONLY public.samples ATTACH PARTITION public.samples_20261116 FOR VALUES FROM ('2026-11-16 00:00:00+00') TO ('2026-11-23 00:00:00+00');
ALTER TABLE ONLY public.samples ATTACH PARTITION public.samples_after_2100 FOR VALUES FROM ('2100-01-01 00:00:00+00') TO (MAXVALUE);
ALTER TABLE ONLY public.samples ATTACH PARTITION public.samples_before_2020 FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
ALTER TABLE ONLY public.window_histograms ATTACH PARTITION public.window_histograms_20261116 FOR VALUES FROM ('2026-11-16 00:00:00+00') TO ('2026-11-23 00:00:00+00');
INSERT INTO public.agent_sequences VALUES ('gw', '0000000000005f0c', 1, 4, 'events', '2026-11-30 15:11:00.680568+00', '2026-11-20 13:00:00+00', 0);
INSERT INTO public.agent_sequences VALUES ('gw', '0000000000005f0c', 7, 13, 'events', '2026-11-30 15:11:00.680568+00', '2026-11-20 13:00:00+00', 0);
INSERT INTO public.agent_sequences VALUES ('gw', '0000000000004a7e', 1, 2, 'rates', '2026-11-30 15:11:00.784232+00', '2026-11-20 13:00:00+00', 0);
INSERT INTO public.agent_sequences VALUES ('gw', 'ffffffffffffa0f3', 1, 1, 'samples', '2026-11-30 15:11:00.869478+00', '2026-11-20 13:00:00+00', 0);
INSERT INTO public.agent_state VALUES ('gw', '0000000000004a7e', 1, '2026-11-20 12:05:00+00', '2026-11-30 15:11:00.784232+00', 'running', '1', true, '2026-11-20 12:00:01+00');
INSERT INTO public.breach_state VALUES ('gw', 'b1', '0000000000005f0c', 9, '2026-11-20 12:00:09+00', '2026-11-30 15:11:00.680568+00', 'cleared', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:09+00', 'wan-down', 'warning', 'eth0', 'rx', 80000000, 90000009, 90000009, 85000000, 9000, 9000, 1125, 'below', 'the rate fell', 1125);
INSERT INTO public.breach_state VALUES ('gw', 'b2', '0000000000005f0c', 10, '2026-11-20 12:00:10+00', '2026-11-30 15:11:00.680568+00', 'open', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:10+00', 'wan-down', 'warning', 'eth0', 'rx', 80000000, 90000010, 90000010, 85000000, 10000, 10000, 1250, NULL, NULL, 1250);
INSERT INTO public.dead_letters VALUES ('fixture', 'events', 0, 0, 11, '2026-11-20 12:00:00+00', '\x', '\x6777', '\x6e6f206576656e74', 8, 'neither JSON nor Avro nor Protobuf: it begins with 6e 6f 20 65 76 65 6e 74, and no content-type says what it is', '2026-11-30 15:11:00.880288+00', 'gw', NULL, NULL, NULL, NULL);
INSERT INTO public.dead_letters VALUES ('fixture', 'events', 0, 0, 12, NULL, '\x', '\x6777', '\x7b22736368656d61223a312c226167656e74223a226777222c2265706f6368223a2230303030303030303030303035663063222c22736571223a31342c226b696e64223a226272656163685f75706461746564222c226f627365727665645f6174223a22323032362d31312d32305431323a30303a31342e3030303030305a222c22626f6f745f6964223a223665346635613065222c226d6f6e6f746f6e69635f6d73223a31343030302c22636c6f636b5f73796e636564223a747275652c226272656163685f6964223a226231222c22737461727465645f6174223a22323032362d31312d32305431323a30303a30302e3030303030305a222c227261697365645f6174223a22323032362d31312d32305431323a30303a30312e3030303030305a222c22656e6465645f6174223a22323032362d31312d32305431323a30303a31342e3030303030305a222c226c696d69745f6e616d65223a2277616e2d646f776e222c227365766572697479223a227761726e696e67222c22696e74657266616365223a2265746830222c226966696e646578223a322c22646972656374696f6e223a227278222c226c696d69745f627073223a38303030303030302c22726174655f627073223a39303030303031342c227065616b5f627073223a39303030303031342c226d65616e5f627073223a38353030303030302c226475726174696f6e5f6d73223a31343030302c226d656173757265645f6d73223a31343030302c226578636573735f6279746573223a313735307d', 568, 'of a later version', '2026-11-30 15:11:00.880288+00', 'gw', '0000000000005f0c', 14, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 1, '2026-11-20 12:00:01+00', 'agent_started', '2026-11-30 15:11:00.680568+00', 'events', 0, 0, '6e4f5a0e', 1000, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '1', NULL, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 2, '2026-11-20 12:00:02+00', 'link_added', '2026-11-30 15:11:00.680568+00', 'events', 0, 1, '6e4f5a0e', 2000, true, NULL, NULL, NULL, NULL, NULL, NULL, 'eth0', 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1000000000, NULL, NULL, NULL, 'added', 'wan0', NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 3, '2026-11-20 12:00:03+00', 'breach_raised', '2026-11-30 15:11:00.680568+00', 'events', 0, 2, '6e4f5a0e', 3000, true, 'b1', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:03+00', 'wan-down', 'warning', 'eth0', 2, 'rx', 80000000, 90000003, 90000003, 85000000, 3000, 3000, 375, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 4, '2026-11-20 12:00:04+00', 'breach_updated', '2026-11-30 15:11:00.680568+00', 'events', 0, 3, '6e4f5a0e', 4000, true, 'b1', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:04+00', 'wan-down', 'warning', 'eth0', 2, 'rx', 80000000, 90000004, 90000004, 85000000, 4000, 4000, 500, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 7, '2026-11-20 12:00:07+00', 'loss', '2026-11-30 15:11:00.680568+00', 'events', 0, 4, '6e4f5a0e', 7000, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0000000000005f0c', '[[5, 6]]', NULL, 'evicted', NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 8, '2026-11-20 12:00:08+00', 'link_changed', '2026-11-30 15:11:00.680568+00', 'events', 0, 5, '6e4f5a0e', 8000, true, NULL, NULL, NULL, NULL, NULL, NULL, 'eth0', 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1000000000, NULL, NULL, NULL, 'renamed', 'wan0', NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 9, '2026-11-20 12:00:09+00', 'breach_cleared', '2026-11-30 15:11:00.680568+00', 'events', 0, 6, '6e4f5a0e', 9000, true, 'b1', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:09+00', 'wan-down', 'warning', 'eth0', 2, 'rx', 80000000, 90000009, 90000009, 85000000, 9000, 9000, 1125, NULL, NULL, NULL, NULL, 'below', 'the rate fell', NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 10, '2026-11-20 12:00:10+00', 'breach_raised', '2026-11-30 15:11:00.680568+00', 'events', 0, 7, '6e4f5a0e', 10000, true, 'b2', '2026-11-20 12:00:00+00', '2026-11-20 12:00:01+00', '2026-11-20 12:00:10+00', 'wan-down', 'warning', 'eth0', 2, 'rx', 80000000, 90000010, 90000010, 85000000, 10000, 10000, 1250, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 11, '2026-11-20 12:00:11+00', 'heartbeat', '2026-11-30 15:11:00.680568+00', 'events', 0, 8, '6e4f5a0e', 11000, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0.1.0', NULL, NULL, NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 12, '2026-11-20 12:00:12+00', 'link_removed', '2026-11-30 15:11:00.680568+00', 'events', 0, 9, '6e4f5a0e', 12000, true, NULL, NULL, NULL, NULL, NULL, NULL, 'eth0', 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1000000000, NULL, NULL, NULL, 'removed', 'wan0', NULL);
INSERT INTO public.events_20261101 VALUES ('gw', '0000000000005f0c', 13, '2026-11-20 12:00:13+00', 'agent_stopped', '2026-11-30 15:11:00.680568+00', 'events', 0, 10, '6e4f5a0e', 13000, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0.1.0', 'signal', NULL, NULL);
INSERT INTO public.highwater_migrations VALUES (1, 'tables', '2026-11-30T15:11:00.431441946Z', '13289523413824676214');
INSERT INTO public.histograms VALUES ('gw', 'eth0', 'rx', 'hour', '2026-11-20 12:00:00+00', 2, 0, 42916816, 8, 0, NULL, 8, 0, 0, 42916816, 91665770, 1000, 91665770, 91665770, '\x1c84931400000025789c9369992cccc0c0c0ce00014c509a1142feff6fff0122c0c2b25984459b050071c10581', 1795179600000, '2026-11-30 15:11:01.028779+00', NULL);
INSERT INTO public.histograms VALUES ('gw', 'eth0', 'tx', 'hour', '2026-11-20 12:00:00+00', 2, 0, 0, 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1795179600000, '2026-11-30 15:11:01.028779+00', NULL);
INSERT INTO public.histograms VALUES ('gw', 'eth0', 'rx', 'day', '2026-11-20 00:00:00+00', 2, 0, 42916816, 8, 0, NULL, 8, 0, 0, 42916816, 91665770, 1000, 91665770, 91665770, '\x1c84931400000025789c9369992cccc0c0c0ce00014c509a1142feff6fff0122c0c2b25984459b050071c10581', 1795179600000, '2026-11-30 15:11:01.028779+00', NULL);
INSERT INTO public.histograms VALUES ('gw', 'eth0', 'tx', 'day', '2026-11-20 00:00:00+00', 2, 0, 0, 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1795179600000, '2026-11-30 15:11:01.028779+00', NULL);
INSERT INTO public.kafka_offsets VALUES ('fixture', 'rates', 0, 0, 2, 1, 1795176000000, 3434006441851702410, 1, 1795176000000, 3434006441851702410, '2026-11-30 15:11:00.784232+00');
INSERT INTO public.kafka_offsets VALUES ('fixture', 'samples', 0, 0, 1, 0, 1795176000000, -8536010614781872231, 0, 1795176000000, -8536010614781872231, '2026-11-30 15:11:00.869478+00');
INSERT INTO public.kafka_offsets VALUES ('fixture', 'events', 0, 0, 13, 12, -1, 5256786149982352758, 10, 1795176000000, -8019509457410015801, '2026-11-30 15:11:00.880288+00');
INSERT INTO public.losses VALUES ('gw', '0000000000005f0c', 5, 6, '0000000000005f0c', 7, '2026-11-20 12:00:07+00', '2026-11-30 15:11:00.680568+00', 'evicted', NULL);
INSERT INTO public.partition_notes VALUES ('events_20261101', '2026-11-30 15:11:00.642276+00', '2026-11-30 15:11:00.642276+00', false, NULL);
INSERT INTO public.partition_notes VALUES ('rates_20261116', '2026-11-30 15:11:00.717415+00', '2026-11-30 15:11:00.717415+00', false, NULL);
INSERT INTO public.partition_notes VALUES ('window_histograms_20261116', '2026-11-30 15:11:00.717415+00', '2026-11-30 15:11:00.717415+00', false, NULL);
INSERT INTO public.partition_notes VALUES ('samples_20261116', '2026-11-30 15:11:00.83107+00', '2026-11-30 15:11:00.83107+00', false, NULL);
INSERT INTO public.rates_20261116 VALUES ('gw', '0000000000004a7e', 1, '2026-11-20 12:05:00+00', '2026-11-30 15:11:00.784232+00', 'rates', 0, 0, 'eth0', 'rx', '2026-11-20 12:00:00+00', 300000, 21458408, 4, 0, NULL, 4, 0, 0, 42916817, 91665770, 1000, 92159000, 92159000, 1000000000, '[{"over_s": 0, "limit_bps": 80000000, "limit_name": "wan-down"}]', true);
INSERT INTO public.rates_20261116 VALUES ('gw', '0000000000004a7e', 1, '2026-11-20 12:05:00+00', '2026-11-30 15:11:00.784232+00', 'rates', 0, 0, 'eth0', 'tx', '2026-11-20 12:00:00+00', 300000, 0, 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 1000000000, '[{"over_s": 0, "limit_bps": 80000000, "limit_name": "wan-down"}]', false);
INSERT INTO public.rates_20261116 VALUES ('gw', '0000000000004a7e', 2, '2026-11-20 12:10:00+00', '2026-11-30 15:11:00.784232+00', 'rates', 0, 1, 'eth0', 'rx', '2026-11-20 12:05:00+00', 300000, 21458408, 4, 0, NULL, 4, 0, 0, 42916817, 91665770, 1000, 92159000, 92159000, 1000000000, '[{"over_s": 0, "limit_bps": 80000000, "limit_name": "wan-down"}]', true);
INSERT INTO public.rates_20261116 VALUES ('gw', '0000000000004a7e', 2, '2026-11-20 12:10:00+00', '2026-11-30 15:11:00.784232+00', 'rates', 0, 1, 'eth0', 'tx', '2026-11-20 12:05:00+00', 300000, 0, 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 1000000000, '[{"over_s": 0, "limit_bps": 80000000, "limit_name": "wan-down"}]', false);
INSERT INTO public.samples_20261116 VALUES ('gw', 'ffffffffffffa0f3', 1, '2026-11-20 12:00:01+00', '2026-11-30 15:11:00.869478+00', 'samples', 0, 0, 'eth0', 1000, 10, NULL, 80, NULL, NULL);
INSERT INTO public.settings VALUES (true, '01:00:00');
INSERT INTO public.totals VALUES ('gw', 'eth0', 'rx', 'wan-down', '2026-11-20', DEFAULT, 2, 2375);
INSERT INTO public.window_histograms_20261116 VALUES ('gw', '0000000000004a7e', 1, '2026-11-20 12:05:00+00', 'eth0', 'rx', '\x1c84931400000024789c9369992cccc0c0c0ce00014c509a1142feff6fff012ac1b45984499b0900719f0579');
INSERT INTO public.window_histograms_20261116 VALUES ('gw', '0000000000004a7e', 2, '2026-11-20 12:10:00+00', 'eth0', 'rx', '\x1c84931400000024789c9369992cccc0c0c0ce00014c509a1142feff6fff012ac1b45984499b0900719f0579');
SELECT pg_catalog.setval('public.touched_hours_id_seq', 1, true);
ALTER TABLE ONLY public.agent_sequences
    ADD CONSTRAINT agent_sequences_pkey PRIMARY KEY (agent, epoch, first_seq);
ALTER TABLE ONLY public.agent_state
    ADD CONSTRAINT agent_state_pkey PRIMARY KEY (agent);
ALTER TABLE ONLY public.breach_state
    ADD CONSTRAINT breach_state_pkey PRIMARY KEY (agent, breach_id);
ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.events_20261101
    ADD CONSTRAINT events_20261101_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.events_after_2100
    ADD CONSTRAINT events_after_2100_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.events_before_2020
    ADD CONSTRAINT events_before_2020_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.highwater_migrations
    ADD CONSTRAINT highwater_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.histograms
    ADD CONSTRAINT histograms_pkey PRIMARY KEY (agent, interface, direction, span, starts_at);
ALTER TABLE ONLY public.kafka_gaps
    ADD CONSTRAINT kafka_gaps_pkey PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition, topic_generation, first_offset);
ALTER TABLE ONLY public.kafka_offsets
    ADD CONSTRAINT kafka_offsets_pkey PRIMARY KEY (kafka_cluster, kafka_topic, kafka_partition);
ALTER TABLE ONLY public.losses
    ADD CONSTRAINT losses_pkey PRIMARY KEY (agent, epoch, first_seq, last_seq, loss_epoch, loss_seq, observed_at);
ALTER TABLE ONLY public.partition_notes
    ADD CONSTRAINT partition_notes_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY public.rates
    ADD CONSTRAINT rates_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
ALTER TABLE ONLY public.rates_20261116
    ADD CONSTRAINT rates_20261116_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
ALTER TABLE ONLY public.rates_after_2100
    ADD CONSTRAINT rates_after_2100_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
ALTER TABLE ONLY public.rates_before_2020
    ADD CONSTRAINT rates_before_2020_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
ALTER TABLE ONLY public.samples
    ADD CONSTRAINT samples_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.samples_20261116
    ADD CONSTRAINT samples_20261116_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.samples_after_2100
    ADD CONSTRAINT samples_after_2100_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.samples_before_2020
    ADD CONSTRAINT samples_before_2020_pkey PRIMARY KEY (agent, observed_at, epoch, seq);
ALTER TABLE ONLY public.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY public.totals
    ADD CONSTRAINT totals_pkey PRIMARY KEY (agent, interface, direction, limit_name, day);
ALTER TABLE ONLY public.touched_hours
    ADD CONSTRAINT touched_hours_pkey PRIMARY KEY (agent, starts_at, id);
ALTER TABLE ONLY public.unpublished_hours
    ADD CONSTRAINT unpublished_hours_pkey PRIMARY KEY (agent, interface, direction, starts_at);
ALTER TABLE ONLY public.window_histograms
    ADD CONSTRAINT window_histograms_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
ALTER TABLE ONLY public.window_histograms_20261116
    ADD CONSTRAINT window_histograms_20261116_pkey PRIMARY KEY (agent, observed_at, epoch, seq, interface, direction);
CREATE INDEX breach_state_open ON public.breach_state USING btree (raised_at) WHERE (state = 'open'::text);
CREATE INDEX breach_state_raised_at ON public.breach_state USING btree (raised_at);
CREATE INDEX dead_letters_agent ON public.dead_letters USING btree (agent, epoch, seq) WHERE (agent IS NOT NULL);
CREATE INDEX dead_letters_stored_at ON public.dead_letters USING btree (stored_at);
CREATE INDEX events_observed_at ON ONLY public.events USING btree (observed_at);
CREATE INDEX events_20261101_observed_at_idx ON public.events_20261101 USING btree (observed_at);
CREATE INDEX events_after_2100_observed_at_idx ON public.events_after_2100 USING btree (observed_at);
CREATE INDEX events_after_2100_stored_at ON public.events_after_2100 USING brin (stored_at);
CREATE INDEX events_before_2020_observed_at_idx ON public.events_before_2020 USING btree (observed_at);
CREATE INDEX events_before_2020_stored_at ON public.events_before_2020 USING brin (stored_at);
CREATE INDEX histograms_starts_at ON public.histograms USING btree (span, starts_at);
CREATE INDEX rates_observed_at ON ONLY public.rates USING btree (observed_at);
CREATE INDEX rates_20261116_observed_at_idx ON public.rates_20261116 USING btree (observed_at);
CREATE INDEX rates_after_2100_observed_at_idx ON public.rates_after_2100 USING btree (observed_at);
CREATE INDEX rates_after_2100_stored_at ON public.rates_after_2100 USING brin (stored_at);
CREATE INDEX rates_before_2020_observed_at_idx ON public.rates_before_2020 USING btree (observed_at);
CREATE INDEX rates_before_2020_stored_at ON public.rates_before_2020 USING brin (stored_at);
CREATE INDEX samples_after_2100_stored_at ON public.samples_after_2100 USING brin (stored_at);
CREATE INDEX samples_before_2020_stored_at ON public.samples_before_2020 USING brin (stored_at);
CREATE INDEX totals_day ON public.totals USING btree (day);
ALTER INDEX public.events_observed_at ATTACH PARTITION public.events_20261101_observed_at_idx;
ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261101_pkey;
ALTER INDEX public.events_observed_at ATTACH PARTITION public.events_after_2100_observed_at_idx;
ALTER INDEX public.events_pkey ATTACH PARTITION public.events_after_2100_pkey;
ALTER INDEX public.events_observed_at ATTACH PARTITION public.events_before_2020_observed_at_idx;
ALTER INDEX public.events_pkey ATTACH PARTITION public.events_before_2020_pkey;
ALTER INDEX public.rates_observed_at ATTACH PARTITION public.rates_20261116_observed_at_idx;
ALTER INDEX public.rates_pkey ATTACH PARTITION public.rates_20261116_pkey;
ALTER INDEX public.rates_observed_at ATTACH PARTITION public.rates_after_2100_observed_at_idx;
ALTER INDEX public.rates_pkey ATTACH PARTITION public.rates_after_2100_pkey;
ALTER INDEX public.rates_observed_at ATTACH PARTITION public.rates_before_2020_observed_at_idx;
ALTER INDEX public.rates_pkey ATTACH PARTITION public.rates_before_2020_pkey;
ALTER INDEX public.samples_pkey ATTACH PARTITION public.samples_20261116_pkey;
ALTER INDEX public.samples_pkey ATTACH PARTITION public.samples_after_2100_pkey;
ALTER INDEX public.samples_pkey ATTACH PARTITION public.samples_before_2020_pkey;
ALTER INDEX public.window_histograms_pkey ATTACH PARTITION public.window_histograms_20261116_pkey;
