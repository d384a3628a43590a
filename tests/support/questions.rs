//! Usual queries on the tables, and rows for them: for the test of the plans, and for the figures.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use postgres::Client;
use postgres::types::ToSql;

pub(crate) struct Question {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
    /// End of the name of the index that serves it.
    pub(crate) index: &'static str,
    /// Longest time on 10 million events and 1.2 million breaches, in milliseconds (`benches/run questions`).
    pub(crate) ms_max: f64,
}

pub(crate) const QUESTIONS: &[Question] = &[
    Question {
        name: "the latest 50 open breaches",
        sql: "SELECT * FROM open_breaches ORDER BY raised_at DESC LIMIT 50",
        index: "breach_state_open",
        ms_max: 50.0,
    },
    Question {
        name: "all open breaches, by their state",
        sql: "SELECT * FROM breaches WHERE state = 'open'",
        index: "breach_state_open",
        ms_max: 50.0,
    },
    Question {
        name: "the latest 100 breaches",
        sql: "SELECT * FROM breaches ORDER BY raised_at DESC LIMIT 100",
        index: "breach_state_raised_at",
        ms_max: 50.0,
    },
    Question {
        name: "the breaches of an hour",
        sql: "SELECT * FROM breaches
              WHERE raised_at >= now() - interval '26 hours' AND raised_at < now() - interval '25 hours' ORDER BY raised_at",
        index: "breach_state_raised_at",
        ms_max: 50.0,
    },
    Question {
        name: "the latest 100 events",
        sql: "SELECT * FROM events ORDER BY observed_at DESC LIMIT 100",
        index: "_observed_at_idx",
        ms_max: 50.0,
    },
    Question {
        name: "the last hour by agent",
        sql: "SELECT agent, count(*), max(peak_bps) FROM events WHERE observed_at >= now() - interval '1 hour' GROUP BY agent",
        index: "_observed_at_idx",
        ms_max: 50.0,
    },
    Question {
        name: "the last hour, each event",
        sql: "SELECT observed_at, agent, kind, interface, direction, rate_bps FROM events
              WHERE observed_at >= now() - interval '1 hour' ORDER BY observed_at",
        index: "_observed_at_idx",
        ms_max: 50.0,
    },
    Question {
        name: "an agent's last day",
        sql: "SELECT * FROM events WHERE agent = 'gw-0042' AND observed_at >= now() - interval '1 day' ORDER BY observed_at",
        index: "_pkey",
        ms_max: 50.0,
    },
    Question {
        name: "one breach's events",
        sql: "SELECT e.* FROM breaches b JOIN events e ON e.agent = b.agent AND e.breach_id = b.breach_id
                                                  AND e.observed_at BETWEEN b.started_at AND b.last_observed_at
              WHERE b.agent = 'gw-0042' AND b.breach_id = 'br-0000042' ORDER BY e.observed_at",
        index: "_pkey",
        ms_max: 50.0,
    },
    Question {
        name: "totals of 30 days by agent and limit",
        sql: "SELECT agent, limit_name, sum(excess_bytes) FROM totals WHERE scope = 'link' AND day >= current_date - 30 GROUP BY 1, 2",
        index: "",
        ms_max: 1_000.0,
    },
    Question {
        name: "all that is missing",
        sql: "SELECT * FROM missing_events ORDER BY noticed_at",
        index: "",
        ms_max: 1_000.0,
    },
];

/// Makes `breaches` breaches of 1,000 agents within the last 30 days, each of 8 or 9 events and one in 10,000 of them still open,
/// with all that follows from them. Rows are inserted by time, as they arrive.
pub(crate) fn fill(client: &mut Client, breaches: u32) {
    // The times are of one now(): a breach has those of its events.
    let mut transaction = client.transaction().expect("a transaction");
    transaction.batch_execute(PARTITIONS).expect("partitions");
    for (table, rows) in ROWS {
        let sql = format!("INSERT INTO {table} {}", rows.replace("{breaches}", &breaches.to_string()));
        transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{table}: {error:?}"));
    }
    transaction.commit().expect("it is committed");
}

/// Two partitions, each with half of the events on any day: one with few rows would be read from end to end, whatever index it has.
const PARTITIONS: &str = "
    DO $$ DECLARE day date; BEGIN
      FOR day IN SELECT (now() AT TIME ZONE 'UTC')::date + ago FROM unnest(ARRAY[-45, -15]) AS ago LOOP
        EXECUTE format('CREATE TABLE events_%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYY_MM_DD'),
                       day || ' 00:00:00+00', day + 30 || ' 00:00:00+00');
      END LOOP;
    END $$";

/// Rows of breach `i` of {breaches}.
const ROWS: &[(&str, &str)] = &[
    (
        "events (agent, epoch, seq, observed_at, kind, stored_at, kafka_topic, kafka_partition, kafka_offset, boot_id, monotonic_ms,
                 clock_synced, breach_id, started_at, raised_at, ended_at, limit_name, severity, interface, ifindex, direction,
                 limit_bps, rate_bps, peak_bps, mean_bps, duration_ms, measured_ms, excess_bytes)",
        "SELECT 'gw-' || lpad((i % 1000)::text, 4, '0'), '5f0c5f0c5f0c5f0c', i / 1000 * 10 + k + 1, began + k * interval '10 s',
                CASE k WHEN 0 THEN 'breach_raised' ELSE 'breach_updated' END, began + k * interval '10 s', 'highwater.events', 0,
                i * 10 + k, '6e4f5a0e-6a0e-4ac4-b9d0-1f0b2a9f3c11', i * 10 + k, true, 'br-' || lpad(i::text, 7, '0'), began, began,
                began + k * interval '10 s', 'wan-down', 'warning', 'eth0', 2, 'rx', 80000000, 90000000, 93000000, 82000000,
                k * 10000, k * 10000, k * 125000
         FROM (SELECT i, now() - interval '30 days' * (1 - i / {breaches}.0) - interval '90 s' AS began
               FROM generate_series(1, {breaches}) AS i) AS b, LATERAL generate_series(0, 7 + (i % 3 = 0)::int) AS k
         ORDER BY began + k * interval '10 s'",
    ),
    (
        "breach_state",
        "SELECT 'gw-' || lpad((i % 1000)::text, 4, '0'), 'br-' || lpad(i::text, 7, '0'), '5f0c5f0c5f0c5f0c', i / 1000 * 10 + 8,
                began + interval '80 s', began + interval '80 s', CASE WHEN i % 10007 = 7 THEN 'open' ELSE 'cleared' END, began,
                began, began + interval '80 s', 'wan-down', 'warning', 'eth0', 'rx', 80000000, 90000000, 93000000, 82000000, 80000,
                80000, 1000000, NULL, NULL, 1000000
         FROM (SELECT i, now() - interval '30 days' * (1 - i / {breaches}.0) - interval '90 s' AS began
               FROM generate_series(1, {breaches}) AS i) AS b",
    ),
    (
        "totals (agent, interface, direction, limit_name, day, breaches, excess_bytes)",
        "SELECT agent, interface, direction, limit_name, (raised_at AT TIME ZONE 'UTC')::date, count(*), sum(excess_bytes)::bigint
         FROM breach_state GROUP BY 1, 2, 3, 4, 5",
    ),
    (
        "agent_sequences",
        "SELECT agent, epoch, first, first + {breaches} / 400, 'events', now() - interval '30 days', now(), 0
         FROM (SELECT DISTINCT agent, epoch FROM breach_state) AS agents,
              (SELECT 1 + n * ({breaches} / 400 + 2) AS first FROM generate_series(0, 3) AS n) AS ranges",
    ),
    (
        "losses",
        "SELECT 'gw-' || lpad(i::text, 4, '0'), '5f0c5f0c5f0c5f0c', {breaches} / 400 + 2, {breaches} / 400 + 2, '5f0c5f0c5f0c5f0c', i,
                now(), now(), 'evicted', NULL
         FROM generate_series(0, 900) AS i",
    ),
    (
        "dead_letters (kafka_cluster, kafka_topic, kafka_partition, topic_generation, kafka_offset, payload, bytes, error, agent, epoch, \
         seq)",
        "SELECT '', 'highwater.events', 0, 0, i, 'x', 1, 'neither JSON nor Avro nor Protobuf',
                CASE WHEN i % 3 > 0 THEN 'gw-' || lpad((i % 1000)::text, 4, '0') END,
                CASE WHEN i % 3 > 1 THEN '5f0c5f0c5f0c5f0c' END, CASE WHEN i % 3 > 1 THEN i END
         FROM generate_series(1, 10000) AS i",
    ),
];

/// Rates of a fleet in windows of five minutes, with their hours and days. Rows are inserted by time, as they arrive.
#[derive(Clone, Copy)]
pub(crate) struct RatesFill {
    pub(crate) agents: i32,
    /// Each with two directions.
    pub(crate) links: i32,
    /// Up to the last midnight.
    pub(crate) days: i32,
    /// The last ones, of which hours and the histograms of windows are stored; days are of all.
    pub(crate) days_with_hours: i32,
    pub(crate) windows_a_day: i32,
}

impl RatesFill {
    /// Returns the last midnight.
    pub(crate) fn fill(self, client: &mut Client, histogram: &[u8]) -> DateTime<Utc> {
        let Self { agents, links, days, days_with_hours, windows_a_day } = self;
        let midnight = Utc::now().duration_trunc(TimeDelta::days(1)).expect("it is a time");
        let today = format!("timestamptz '{midnight}'");
        let begin = format!("{today} - make_interval(days => $1::int)");
        for week in 0..(days + 6) / 7 {
            for table in ["rates", "window_histograms"] {
                let bound = |week: i32| format!("({today} + make_interval(days => {}))", 7 * week - days);
                let sql = format!(
                    "DO $$ BEGIN EXECUTE format('CREATE TABLE {table}_week_{week} PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                                                {}, {}); END $$",
                    bound(week),
                    bound(week + 1)
                );
                client.batch_execute(&sql).expect("a partition");
            }
        }
        let series = "SELECT 'gw-' || lpad(a::text, 4, '0') AS agent, 'eth' || l AS interface, direction
                      FROM generate_series(0, $2::int - 1) AS a, generate_series(0, $3::int - 1) AS l, (VALUES ('rx'), ('tx')) AS d (direction)";
        // $1: the day, $4: its windows; the last one of all ends before midnight.
        let windows = format!(
            "(SELECT ($1::int - 1) * $4::int + n AS n, {today} - make_interval(days => {days})
                     + (($1::int - 1) * $4::int + n) * make_interval(secs => 86400.0 / $4::int) AS ended_at
              FROM generate_series(1, $4::int - CASE WHEN $1::int = {days} THEN 1 ELSE 0 END) AS n) AS windows"
        );
        let rates = format!(
            "INSERT INTO rates (agent, epoch, seq, observed_at, stored_at, kafka_topic, kafka_partition, kafka_offset, interface,
                                direction, started_at, window_ms, bytes, packets, errors, drops, measured_s, unmeasured_s, min_bps,
                                mean_bps, max_bps, p50_bps, p95_bps, p99_bps, speed_bps, over, has_histogram)
             SELECT agent, '5f0c5f0c5f0c5f0c', n, ended_at, ended_at, 'highwater.rates', 0, n, interface, direction,
                    ended_at - interval '5 min', 300000, 375000000 + n % 1000 * 1000, 500000, 0, 0, 300, 0, 1000000, 10000000,
                    90000000, 9000000, 40000000, 70000000, 1000000000, '[]', true
             FROM {windows}, ({series}) AS series ORDER BY windows.n, series.agent"
        );
        let histograms = format!(
            "INSERT INTO window_histograms (agent, epoch, seq, observed_at, interface, direction, histogram)
             SELECT agent, '5f0c5f0c5f0c5f0c', n, ended_at, interface, direction, $5::bytea
             FROM {windows}, ({series}) AS series ORDER BY windows.n, series.agent"
        );
        for day in 1..=days {
            client.execute(&rates, &[&day, &agents, &links, &windows_a_day]).expect("rates");
            if day > days - days_with_hours {
                let parameters: [&(dyn ToSql + Sync); 5] = [&day, &agents, &links, &windows_a_day, &histogram];
                client.execute(&histograms, &parameters).expect("their histograms");
            }
        }
        for (span, hours, days) in [("day", 24, days), ("hour", 1, days_with_hours)] {
            let merged = format!(
                "INSERT INTO histograms (agent, interface, direction, span, starts_at, windows, late_windows, bytes, measured_s,
                                         unmeasured_s, min_bps, mean_bps, max_bps, p50_bps, p95_bps, p99_bps, histogram, version)
                 SELECT agent, interface, direction, '{span}', starts_at, 12 * {hours}, 0, 4500000000 * {hours}, 3600 * {hours}, 0,
                        1000000, 10000000, 90000000, 9000000, 40000000, 70000000, $4::bytea, 1
                 FROM generate_series({begin}, {today} - interval '1 s', interval '{hours} hours') AS starts_at,
                      ({series}) AS series"
            );
            client.execute(&merged, &[&days, &agents, &links, &histogram]).expect("histograms");
        }
        midnight
    }
}
