"""What Django's schema language cannot say: storage settings, the dispatch sequence, partitions."""

from django.db import migrations

STORAGE = """
-- Room on each page for a new version of every row: promotion updates a page of tasks at once.
-- At 70 only 38 % of the updates of a life were HOT and the table ended larger; at 50, 63 %, all
-- but the last, which changes an index.
ALTER TABLE tasks SET (fillfactor = 50);

-- Rows of these tables live for moments; by the default a fifth of a table may be dead first.
ALTER TABLE waiting SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE ready SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE leases SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE deferred SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE SEQUENCE dispatch_sequence CACHE 1;

CREATE TABLE log_chunks (
    task_id bigint NOT NULL,
    fencing_token bigint NOT NULL,
    stream varchar(6) NOT NULL,
    start bigint NOT NULL,
    data bytea NOT NULL,
    claimed_at timestamptz NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (task_id, fencing_token, stream, start, claimed_at)
) PARTITION BY RANGE (claimed_at);

-- Catches what the daily partitions, made ahead by recovery, do not cover.
CREATE TABLE log_chunks_default PARTITION OF log_chunks DEFAULT;
"""

UNDO = """
DROP TABLE log_chunks;
DROP SEQUENCE dispatch_sequence;
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]

    operations = [migrations.RunSQL(STORAGE, UNDO)]
