-- What a row takes in PostgreSQL, with its part of the indexes and of what is stored beside the table, partitions summed up:
--
--     psql URL -f benches/sizes.sql
--
-- VACUUM ANALYZE first: rows are counted by its estimate.
WITH parts AS (
    SELECT coalesce(i.inhparent, c.oid) AS parent, c.oid AS part, greatest(c.reltuples, 0)::numeric AS rows
    FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
)
SELECT parent::regclass AS "table", sum(rows) AS rows,
       round(sum(pg_table_size(part)) / sum(rows)) AS "table, bytes a row",
       round(sum(pg_indexes_size(part)) / sum(rows)) AS "indexes, bytes a row",
       round(sum(pg_total_relation_size(part)) / sum(rows)) AS "all, bytes a row"
FROM parts GROUP BY parent HAVING sum(rows) > 100 ORDER BY sum(pg_total_relation_size(part)) DESC;
