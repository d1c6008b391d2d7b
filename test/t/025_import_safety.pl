# 025_import_safety.pl - keypool_import reads the rows of a table and runs no code of its owner's, who may be anybody.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('import_safety');

# Mallory's functions make Mallory a superuser if somebody else runs them. One claims to be immutable, so that it is run
# where expressions are simplified. The plain role "manager" owns keypool; a superuser acts for it.
$node->safe_psql('postgres', q{
    CREATE ROLE mallory;
    CREATE ROLE manager;
    ALTER SCHEMA keypool OWNER TO manager;
    ALTER TABLE keypool.provider_keys OWNER TO manager;
    ALTER TABLE keypool.key_meters OWNER TO manager;
    ALTER TABLE keypool.quotas OWNER TO manager;
    ALTER TABLE keypool.quota_meters OWNER TO manager;
    ALTER TABLE keypool.providers OWNER TO manager;
    ALTER TABLE keypool.grants OWNER TO manager;
    ALTER TABLE keypool.wakeups OWNER TO manager;
    ALTER TABLE keypool.master_keys OWNER TO manager;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public, keypool TO manager;
    CREATE EXTENSION postgres_fdw;
    CREATE SCHEMA lair AUTHORIZATION mallory;
    GRANT USAGE ON SCHEMA lair TO PUBLIC;
    GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO mallory;
    SET ROLE mallory;
    CREATE FUNCTION lair.deed() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
        IF session_user <> current_user AND current_user <> 'mallory' THEN RESET ROLE; END IF;
        IF current_user <> 'mallory' THEN ALTER ROLE mallory SUPERUSER; END IF;
        RETURN true; END $$;
    CREATE FUNCTION lair.trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM lair.deed(); RETURN $1; END $$;
    CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw});

my $columns = q{id uuid, provider_id text, key_label text, key_value text, priority integer, max_rpm bigint, max_tpm bigint, is_active boolean,
    last_429_at timestamptz, cooldown_until timestamptz, total_requests bigint, total_tokens bigint, last_used_at timestamptz, created_at timestamptz,
    updated_at timestamptz};

# What Mallory makes of the table den.keys, who imports it, and what comes of it.
my $den = 'CREATE SCHEMA den AUTHORIZATION mallory; GRANT USAGE ON SCHEMA den TO PUBLIC; SET ROLE mallory;';
my $as_superuser = '';
my $as_manager   = 'SET ROLE manager;';
for my $case (
    [ 'a policy', "CREATE TABLE den.keys ($columns); INSERT INTO den.keys (id, provider_id, key_value, is_active) VALUES (gen_random_uuid(), 'lair', 'sk-lair', true); ALTER TABLE den.keys ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON den.keys USING (lair.deed());",
        $as_manager, qr/^ERROR:  42501: .*row-level security/ ],
    [ 'an index on an expression', "CREATE TABLE den.keys ($columns); CREATE INDEX ON den.keys ((lair.trap(1)));", $as_superuser, qr/^$/ ],
    [ 'an index with a condition', "CREATE TABLE den.keys ($columns); CREATE INDEX ON den.keys (id) WHERE lair.trap(1) = 1;", $as_superuser, qr/^$/ ],
    [ 'statistics on an expression', "CREATE TABLE den.keys ($columns); CREATE STATISTICS den.s ON lair.trap(2), id FROM den.keys;", $as_superuser, qr/^$/ ],
    [ 'a check', "CREATE TABLE den.keys ($columns); CREATE TABLE den.more (CHECK (lair.trap(3) = 3)) INHERITS (den.keys);", $as_superuser, qr/^$/ ],
    [ 'a partition key', "CREATE TABLE den.keys ($columns) PARTITION BY RANGE ((priority + lair.trap(4)));", $as_superuser, qr/^$/ ],
    [ 'a view', "CREATE VIEW den.keys AS SELECT * FROM (SELECT 1 WHERE lair.deed()) v;", $as_superuser, qr/^ERROR:  42809: "keys" is not a table/ ],
    [ 'a type', "CREATE DOMAIN den.label AS text CHECK (lair.deed()); CREATE TABLE den.keys ($columns, more den.label);", $as_superuser,
        qr/^ERROR:  42809: column "more" of "keys" is not of a type of PostgreSQL's own/ ],
    [ 'another server', "CREATE FOREIGN TABLE den.keys ($columns) SERVER elsewhere;", $as_superuser, qr/^ERROR:  42809: "keys" is not a table/ ],
    [ 'a partition on another server', "CREATE TABLE den.keys ($columns) PARTITION BY LIST (provider_id); CREATE FOREIGN TABLE den.more PARTITION OF den.keys DEFAULT SERVER elsewhere;",
        $as_superuser, qr/^ERROR:  42809: "more" is not a table/ ],
) {
    my ($name, $trap, $importer, $outcome) = @$case;
    $node->safe_psql('postgres', "$den $trap GRANT SELECT ON den.keys TO manager");
    like(failure_of($node, "$importer SELECT * FROM keypool_import('den.keys')"), $outcome, "$name: imported, or refused");
    is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', "$name: runs nothing");
    $node->safe_psql('postgres', 'ALTER ROLE mallory NOSUPERUSER; DROP SCHEMA den CASCADE');
}

# A role that may not read the table does not by way of keypool.
$node->safe_psql('postgres', "$den CREATE TABLE den.keys ($columns)");
like(failure_of($node, q{SET ROLE manager; SELECT * FROM keypool_import('den.keys')}), qr/^ERROR:  42501: permission denied for table keys/,
    'a table that the caller may not read is refused');

# Rows are read as a query reads them: of partitions and children whose columns lie elsewhere, of columns that were added
# with a default or dropped, and large values.
$node->safe_psql('postgres', qq{
    CREATE TABLE parted ($columns) PARTITION BY LIST (provider_id);
    CREATE TABLE part (updated_at timestamptz, gone integer, key_label text, provider_id text, key_value text, is_active boolean, id uuid);
    INSERT INTO part (id, provider_id, key_label, key_value, is_active) VALUES (gen_random_uuid(), 'moved', repeat('long', 100), 'sk-moved', true);
    ALTER TABLE part DROP gone, ADD priority integer DEFAULT 7, ADD max_rpm bigint DEFAULT 8, ADD max_tpm bigint, ADD last_429_at timestamptz, ADD cooldown_until timestamptz,
        ADD total_requests bigint DEFAULT 9, ADD total_tokens bigint, ADD last_used_at timestamptz, ADD created_at timestamptz;
    ALTER TABLE parted ATTACH PARTITION part FOR VALUES IN ('moved');
    CREATE TABLE rest PARTITION OF parted DEFAULT;
    INSERT INTO parted (id, provider_id, key_value, is_active) SELECT gen_random_uuid(), 'many', 'sk-' || i, true FROM generate_series(1, 3000) i;
    CREATE TABLE minutes (key_id uuid, window_minute timestamptz, request_count integer, token_count bigint);
    CREATE TABLE minutes_more () INHERITS (minutes);
    INSERT INTO minutes_more SELECT id, date_trunc('minute', now()), 5, 50 FROM part});
is($node->safe_psql('postgres', q{SET work_mem = '64kB'; SELECT * FROM keypool_import('parted', 'minutes')}), '3001|1', 'partitions and children are read');
is($node->safe_psql('postgres', q{SELECT key_label = repeat('long', 100), priority, max_rpm, total_requests, window_requests, window_tokens FROM keypool_list_keys('moved')}),
    't|7|8|9|5|50', 'with all that is in them');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT id), count(key_label) FROM keypool_list_keys('many')}), '3000|0', 'and nothing else');

$node->stop;
done_testing();
