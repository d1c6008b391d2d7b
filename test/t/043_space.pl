# 043_space.pl - the places of deleted meters are used again, and a selection passes through JSON unharmed.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('space');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub pages { return value(q{SELECT pg_relation_size('keypool.key_meters') / 8192, pg_relation_size('keypool.quota_meters') / 8192}); }

sub add_and_delete {
    value(q{
        INSERT INTO keypool.provider_keys (provider_id, key_value) SELECT 'p', 'sk-' || i FROM generate_series(1, 40) i;
        INSERT INTO keypool.quotas (provider_id, name, account) SELECT 'p', 'q' || i, 'a' || i FROM generate_series(1, 40) i});
    my $pages = pages();
    value('DELETE FROM keypool.provider_keys; DELETE FROM keypool.quotas');
    value('VACUUM keypool.key_meters, keypool.quota_meters');
    return $pages;
}
is(add_and_delete(), '40|40', 'each meter has a page of its own');
is(add_and_delete(), '40|40', "the next take the places of those that were deleted ($_)") for 1 .. 3;

# JSON, by Python always, and by Node where it is installed.
my $row = q{SELECT row_to_json(s) FROM keypool_select('j', 10) s};
value(q{SELECT keypool_add_key('j', E'a "quoted" \\\\ label', 'sk-j', 3, 9007199254740993, settings => '{"attributes": {"base_url": "https://x.example/v1"}}')});
my %programs = (
    python3 => [ 'python3', '-c', 'import json, sys; r = json.load(sys.stdin); print(r["key_id"], r["lease"], r["attributes"]["base_url"])' ],
    node => [ 'node', '-e', 'const r = JSON.parse(require("fs").readFileSync(0)); console.log(r.key_id, r.lease, r.attributes.base_url)' ]);
for my $program (sort keys %programs) {
  SKIP: {
        skip "$program is not installed", 1 if system("command -v $program >/dev/null") != 0;
        my ($out, $err) = ('', '');
        my $json = value($row);
        IPC::Run::run($programs{$program}, '<', \$json, '>', \$out, '2>', \$err) or die $err;
        my ($key, $lease, $url) = split ' ', $out;
        is(value("SELECT keypool_record('$key', 7, '$lease'), keypool_record('$key', 7, '$lease')") . " $url", 't|f https://x.example/v1',
            "what $program parsed settles the call");
    }
}

$node->stop;
done_testing();
