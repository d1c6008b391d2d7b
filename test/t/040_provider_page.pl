# 040_provider_page.pl - every statement of docs/reference/providers.md runs, and then the limits hold as the page says.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $page = 'docs/reference/providers.md';
my $node = new_cluster('page', conf => "synchronous_commit = off\ntimezone = 'UTC'\nkeypool.test_now = '2026-01-01 00:00:00+00'\n");
my $session = open_session($node);

# The blocks of SQL below each heading of the page, in order: [[heading, statements], ...]. Dies of a fence that it does not
# know, so that no block is left out.
sub blocks_of {
    my ($text) = @_;
    my ($heading, $block, @blocks);
    for my $line (split /\n/, $text) {
        if (defined $block) {
            if ($line eq '```') { push @blocks, [ $heading, $block ]; undef $block; }
            else { $block .= "$line\n"; }
        }
        elsif ($line eq '```sql') { $block = ''; }
        elsif ($line =~ /```|~~~|^\s{4,}\S/) { die "not a block of SQL: $line\n"; }
        elsif ($line =~ /^## (.*)/) { $heading = $1; }
    }
    die "a block has no end\n" if defined $block;
    return @blocks;
}

# A clock that only goes forward, and stands still between.
sub at { my ($moment) = @_; $session->ask("SET keypool.test_now = '$moment+00'"); return; }

# The arguments of a call, which may not be given these keys.
sub arguments {
    my ($provider, $arguments, @except) = @_;
    my $labels = join(', ', map { "'$_'" } @except) || return $arguments;
    return "$arguments, except_keys => ARRAY(SELECT id FROM keypool_list_keys('$provider') WHERE key_label IN ($labels))";
}

# A statement over the rows of so many selections. The name of the provider depends on i, or all rows would be of one selection.
sub selecting {
    my ($columns, $provider, $count, @arguments) = @_;
    return "SELECT $columns FROM generate_series(1, $count) i, keypool_try_select(concat('$provider', nullif(i, i)), " . arguments($provider, @arguments) . ')';
}

my $ok     = q{FILTER (WHERE status = 'ok')};
my $answer = qq{count(*) $ok || ' by ' || count(DISTINCT key_id) $ok || coalesce(string_agg(DISTINCT ', then ' || concat_ws(' ', status, blocked_by, blocked_limit), '') FILTER (WHERE status <> 'ok'), '')};

# Selects so often, and tells how many were granted, by how many keys, and what is in the way of more. The calls stay open.
sub held { return $session->ask(selecting($answer, @_)); }

# The same, and every call is recorded as it was estimated.
sub used {
    my $row = $session->ask(selecting("$answer, count(*) $ok = keypool_record_many(coalesce(array_agg(key_id) $ok, '{}'), NULL, coalesce(array_agg(lease) $ok, '{}'))", @_));
    return $row =~ /^(.*)\|t$/ ? $1 : "$row $session->{messages}";
}

# One call that was estimated so, and used so much.
sub corrected {
    my ($provider, $arguments, $usage) = @_;
    return $session->ask("SELECT status, keypool_record(key_id, lease => lease, $usage) FROM keypool_try_select('$provider', $arguments)");
}

# So many calls of no tokens a minute, for so many minutes from a moment on; how many were granted. The clock stands at the last. A window is
# of whole seconds, so it is empty after 61.
$node->safe_psql('postgres', q{
    CREATE FUNCTION minute_by_minute(provider text, first timestamptz, minutes integer, count integer, asked_model text) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        given record;
        granted bigint := 0;
    BEGIN
        FOR minute IN 0 .. minutes - 1 LOOP
            PERFORM set_config('keypool.test_now', (first + minute * interval '61 s')::text, false);
            FOR i IN 1 .. count LOOP
                SELECT * INTO given FROM keypool_try_select(provider, 0, asked_model);
                EXIT WHEN given.status <> 'ok';
                PERFORM keypool_record(given.key_id, lease => given.lease);
                granted := granted + 1;
            END LOOP;
        END LOOP;
        RETURN granted;
    END $$});

sub minute_by_minute {
    my ($provider, $first, $minutes, $count, $model) = @_;
    return $session->ask("SELECT minute_by_minute('$provider', '$first+00', $minutes, $count, $model)");
}

# A call that the provider answers with 429, and the key that it was made with.
sub refused {
    my ($provider, $model) = @_;
    return $session->ask("SELECT key_label FROM keypool_select('$provider', model => '$model') s, keypool_mark_429(key_id, lease => s.lease)");
}

sub selected { my ($provider, $model) = @_; return $session->ask("SELECT status, coalesce(key_label, blocked_by), retry_after_ms FROM keypool_try_select('$provider', model => '$model')"); }

# Keys whose account does not end with what an attribute says.
sub misplaced { my ($provider, $attribute) = @_; return $session->ask("SELECT key_label FROM keypool_list_keys('$provider') WHERE account NOT LIKE '%/' || (attributes->>'$attribute')"); }

# What holds after each block of a provider.
my %checks = (
    'OpenAI' => [
        sub {
            my @org = ('chat 1', 'chat 2');
            at('2026-01-15 12:00:00');
            is(used('openai', 601, q{0, 'gpt-5'}, 'search'), '600 by 2, then limited chat gpt-5 max_rpm', 'two keys of a project never exceed its max_rpm');
            is(used('openai', 401, q{0, 'gpt-5-mini'}, @org), '400 by 1, then limited org gpt-5 max_rpm', 'and with another project that of the organization, whichever model of the family');
            is(used('openai', 2000, q{0, 'o4-mini'}), '2000 by 3', 'another family is not counted with it');
            at('2026-01-15 12:01:01');
            is(used('openai', 3, q{100000, 'gpt-5'}, 'search'), '3 by 2', 'tokens up to max_tpm of the project');
            is(used('openai', 1, q{1, 'gpt-5'}, 'search'), '0 by 0, then limited chat gpt-5 max_tpm', 'and not one more');
            is(used('openai', 2, q{100000, 'gpt-5'}, @org), '2 by 1', 'with another project up to that of the organization');
            is(used('openai', 1, q{1, 'gpt-5'}, @org), '0 by 0, then limited org gpt-5 max_tpm', 'and not one more');
            is(minute_by_minute('openai', '2026-01-16 23:49:30', 10, 1001, q{'gpt-5'}), 10000, 'a day of full minutes');
            at('2026-01-16 23:59:59');
            is(used('openai', 1, q{0, 'gpt-5'}), '0 by 0, then limited org gpt-5 max_rpd', 'is over at max_rpd');
            at('2026-01-17 00:00:00');
            is(used('openai', 1, q{0, 'gpt-5'}), '1 by 1', 'and the next begins at midnight');
            is(used('openai', 2, q{0, 'o4-mini', cost => 250000000}), '2 by 2', 'money up to the budget');
            is(used('openai', 1, q{0, 'gpt-5', cost => 1}), '0 by 0, then limited org budget max_cost_per_month', 'and not one unit more, whichever model');
            at('2026-01-31 23:59:59');
            is(used('openai', 1, q{0, 'gpt-5', cost => 1}), '0 by 0, then limited org budget max_cost_per_month', 'all month');
            at('2026-02-01 00:00:00');
            is(used('openai', 1, q{0, 'gpt-5', cost => 1}), '1 by 1', 'until the next');
        },
        sub {
            for my $second ('00', '02', '04.999') {
                at("2026-02-02 12:00:$second");
                is(used('openai', 11, q{0, 'gpt-5'}, 'search'), '10 by 2, then limited chat gpt-5 max_rpm', 'no more in a second than its share');
            }
            is($session->ask(q{SELECT max_tpm FROM keypool_list_quotas('openai') WHERE name = 'chat gpt-5'}), 300000, 'the other limits stay');
        },
    ],
    'Anthropic' => [
        sub {
            at('2026-01-15 12:00:00');
            is(used('anthropic', 1001, q{0, 'claude-opus-4-8'}), '1000 by 3, then limited opus 4 max_rpm', 'requests of the class');
            is(used('anthropic', 1, q{0, 'claude-opus-4-5'}), '0 by 0, then limited opus 4 max_rpm', 'of all its models together');
            is(used('anthropic', 1001, q{0, 'claude-sonnet-4-6'}), '1001 by 3', 'not of another class');
            at('2026-01-15 12:01:01');
            is(used('anthropic', 1, q{790000, 'claude-opus-4-8', 90000, cached_tokens => 200000}, 'evals'), '1 by 1', 'input counts without cache reads and output');
            is(used('anthropic', 1, q{1, 'claude-opus-4-8'}), '0 by 0, then limited opus 4 max_tpm', 'and fills max_tpm');
            at('2026-01-15 12:02:02');
            is(used('anthropic', 10, q{10000, 'claude-opus-4-8', 10000}), '10 by 3', 'output has a limit of its own');
            is(used('anthropic', 1, q{1, 'claude-opus-4-8', 1}), '0 by 0, then limited opus 4 max_output_tpm', 'and not one more');
            at('2026-01-15 12:03:03');
            is(used('anthropic', 2, q{80000, 'claude-opus-4-8', 10000, cached_tokens => 20000}, 'app 1', 'app 2'), '2 by 1', 'a workspace has its lower limit');
            is(used('anthropic', 1, q{1, 'claude-opus-4-8'}, 'app 1', 'app 2'), '0 by 0, then limited evals opus 4 max_tpm', 'and not one more');
            is(used('anthropic', 5, q{100000, 'claude-opus-4-8'}, 'evals'), '4 by 2, then limited opus 4 max_tpm', 'and the rest is for the others');
            is(used('anthropic', 1, q{0, 'claude-sonnet-4-6', cost => 500000000}), '1 by 1', 'spend of the organization');
            is(used('anthropic', 1, q{0, 'claude-sonnet-4-6', cost => 1}), '0 by 0, then limited spend max_cost_per_month', 'up to its cap');
            at('2026-02-01 00:00:00');
            is(used('anthropic', 1, q{0, 'claude-sonnet-4-6', cost => 500000000}), '1 by 1', 'by month');
        },
    ],
    'Gemini API' => [
        sub {
            at('2026-01-15 12:00:00');
            is(used('gemini', 151, q{0, 'gemini-2.5-flash'}), '150 by 2, then limited flash max_rpm', 'two keys of a project never exceed its max_rpm');
            is(used('gemini', 200, q{0, 'gemini-2.5-flash-lite'}), '200 by 2', 'of one model');
            at('2026-01-15 12:01:01');
            is(used('gemini', 1, q{2500000, 'gemini-2.5-flash', 500000, cached_tokens => 1000}), '1 by 1', 'output does not count');
            is(used('gemini', 1, q{1, 'gemini-2.5-flash', cached_tokens => 1}), '0 by 0, then limited flash max_tpm', 'all of the prompt does');
            for my $day ([ '2026-01-17', '07:50:00', '07:59:59.999', '08:00:00', 'in winter' ], [ '2026-07-16', '06:50:00', '06:59:59.999', '07:00:00', 'in summer' ]) {
                my ($date, $begin, $before, $midnight, $season) = @$day;
                is(minute_by_minute('gemini', "$date $begin", 8, 150, q{'gemini-2.5-flash'}), 1000, "a day has max_rpd requests $season");
                at("$date $before");
                is(used('gemini', 1, q{0, 'gemini-2.5-flash'}), '0 by 0, then limited flash max_rpd', "until midnight Pacific time $season");
                at("$date $midnight");
                is(used('gemini', 1, q{0, 'gemini-2.5-flash'}), '1 by 1', "and no longer $season");
            }
        },
    ],
    'Vertex AI' => [
        sub {
            at('2026-01-15 12:00:00');
            is($session->ask(q{SELECT key_value || ' ' || (attributes->>'region') FROM keypool_select('vertex', model => 'gemini-2.5-pro')}), 'example-vertex-1 europe-west4', 'the first region is used');
            is(misplaced('vertex', 'region'), '', 'keys tell the region that they are counted in');
            is(refused('vertex', 'gemini-2.5-pro'), 'europe', 'and answers 429');
            is($session->ask(q{SELECT key_value || ' ' || (attributes->>'region') FROM keypool_select('vertex', model => 'gemini-2.5-pro')}), 'example-vertex-1 us-central1', 'then the other, with the same secret');
            is(selected('vertex', 'gemini-2.5-flash'), 'ok|europe|', 'another model is not blocked');
            is(refused('vertex', 'gemini-2.5-pro'), 'us', 'the other answers 429');
            is(selected('vertex', 'gemini-2.5-pro') =~ s/(europe|us) pro/all/r, 'cooling|all|10000', 'then there is none');
            is($session->ask(q{SELECT count(*) FROM keypool_list_quotas('vertex') WHERE blocked_until = '2026-01-15 12:00:10+00'}), 2, 'for the model in both regions');
            at('2026-01-15 12:00:10');
            is(selected('vertex', 'gemini-2.5-pro'), 'ok|europe|', 'for a short time');
        },
    ],
    'Azure OpenAI' => [
        sub {
            at('2026-01-15 12:00:00');
            is(used('azure', 101, q{0, 'gpt-4o'}), '100 by 2, then limited chat max_rpm', 'two keys of a deployment never exceed the share of 10 seconds');
            is(used('azure', 201, q{0, 'gpt-4o-mini'}), '200 by 1, then limited mini max_rpm', 'another deployment has its own');
            at('2026-01-15 12:00:09');
            is(used('azure', 1, q{0, 'gpt-4o'}), '0 by 0, then limited chat max_rpm', 'in any 10 seconds');
            my $all = 100;
            for my $second (11, 22, 33, 44, 55) { at("2026-01-15 12:00:$second"); $all += used('azure', 101, q{0, 'gpt-4o'}) =~ /^(\d+)/ ? $1 : 0; }
            is($all, 600, 'and in a minute max_rpm');
            at('2026-01-15 12:02:02');
            is(used('azure', 1, q{100000, 'gpt-4o', 90000}), '1 by 1', 'an estimate that fills the minute');
            is(used('azure', 1, q{1, 'gpt-4o'}), '0 by 0, then limited chat max_tpm', 'stays, recorded without tokens');
            is(used('azure', 2, q{100000, 'gpt-4o-mini'}), '2 by 1', 'in its deployment');
            is(used('azure', 1, q{1, 'gpt-4o-mini'}), '0 by 0, then limited mini max_tpm', 'as in the other');
            at('2026-01-15 12:03:03');
            is($session->ask(q{SELECT key_value || ' ' || (attributes->>'deployment') FROM keypool_select('azure', model => 'gpt-4o-mini')}), 'example-azure-1 mini', 'a secret serves several deployments');
            is(misplaced('azure', 'deployment'), '', 'and keys tell theirs');
            is($session->ask(q{SELECT DISTINCT attributes->>'base_url' FROM keypool_list_keys('azure')}), 'https://east.openai.azure.com', 'and where it is');
        },
    ],
    'Mistral' => [
        sub {
            for my $second (0, 2, 4) {
                at("2026-01-15 12:00:0$second");
                is(used('mistral', 7, q{0}), '6 by 2, then limited org max_rpm', 'two workspaces never exceed the requests of a second');
            }
            at('2026-01-15 12:02:02');
            is(used('mistral', 2, q{250000, output_tokens => 100000}), '2 by 2', 'tokens of a minute, input and output');
            is(used('mistral', 1, q{1, output_tokens => 1}), '0 by 0, then limited org max_tpm', 'and not one more');
            at('2026-01-15 12:04:04');
            is(corrected('mistral', '0', 'tokens => 999500000'), 'ok|t', 'a month of tokens');
            at('2026-01-31 23:59:59');
            is(used('mistral', 1, q{1}), '0 by 0, then limited org max_tokens_per_month', 'is over at max_tokens_per_month');
            at('2026-02-01 00:00:00');
            is(used('mistral', 1, q{1}), '1 by 1', 'until the next');
        },
    ],
    'DeepSeek' => [
        sub {
            at('2026-01-15 12:00:00');
            is(held('deepseek', 501, q{0, 'deepseek-v4-pro'}), '500 by 2, then busy pro max_in_flight', 'two keys of an account never have more calls in flight than the model allows');
            is(held('deepseek', 2501, q{0, 'deepseek-flash'}), '2500 by 2, then busy flash max_in_flight', 'another model has its own places');
            at('2026-01-15 12:01:01');
            is(held('deepseek', 1, q{0, 'deepseek-v4-pro'}), '0 by 0, then busy pro max_in_flight', 'not for a minute');
            is($session->ask(q{SELECT keypool_record(keypool_key('deepseek', 'chat'), 10, model => 'deepseek-v4-pro')}), 't', 'but until a call is settled');
            is(held('deepseek', 2, q{0, 'deepseek-v4-pro'}), '1 by 1, then busy pro max_in_flight', 'makes one place');
            at('2026-01-15 12:29:59');
            is(held('deepseek', 1, q{0, 'deepseek-v4-pro'}), '0 by 0, then busy pro max_in_flight', 'a place that nobody settles stays taken');
            at('2026-01-15 12:35:00');
            is(held('deepseek', 1, q{0, 'deepseek-v4-pro'}), '1 by 1', 'for call_timeout');
        },
    ],
    'Groq' => [
        sub {
            my $model = q{'openai/gpt-oss-120b'};
            at('2026-01-15 12:00:00');
            is(used('groq', 31, "0, $model"), '30 by 2, then limited oss minute max_rpm', 'two keys of an organization never exceed its max_rpm');
            at('2026-01-15 12:01:01');
            is(used('groq', 1, "20000, $model, 1000, cached_tokens => 12000"), '1 by 1', 'cached tokens do not count');
            is(used('groq', 1, "1, $model"), '0 by 0, then limited oss minute max_tpm', 'others do');
            is(minute_by_minute('groq', '2026-01-17 23:20:00', 36, 30, $model), 1000, 'a day of full minutes');
            at('2026-01-18 00:10:00');
            is(used('groq', 1, "0, $model"), '0 by 0, then limited oss day max_rpd', 'is not over at midnight');
            at('2026-01-18 23:19:59');
            is(used('groq', 1, "0, $model"), '0 by 0, then limited oss day max_rpd', 'but after 24 hours');
            at('2026-01-18 23:44:00');
            is(used('groq', 1, "0, $model"), '1 by 1', 'and at most 24 minutes');
            at('2026-01-21 12:00:00');
            is(corrected('groq', "0, $model", 'tokens => 249999, cached_tokens => 50000'), 'ok|t', 'tokens of a day');
            at('2026-01-21 13:00:00');
            is(used('groq', 1, "1, $model"), '1 by 1', 'but of those that are not cached');
            is(used('groq', 1, "1, $model"), '0 by 0, then limited oss day max_tpd', 'are over, too');
        },
        sub {
            my $model = q{'whisper-large-v3'};
            at('2026-01-25 12:00:00');
            is(used('groq', 21, "0, $model"), '20 by 2, then limited whisper minute max_rpm', 'requests of a minute');
            is(used('groq', 1, q{0, 'openai/gpt-oss-120b'}), '1 by 1', 'not of another model');
            at('2026-01-25 12:10:00');
            is(used('groq', 3, "3600, $model"), '2 by 2, then limited whisper hour max_tph', 'seconds of an hour');
            at('2026-01-25 13:09:59');
            is(used('groq', 1, "1, $model"), '0 by 0, then limited whisper hour max_tph', 'of any hour');
            for my $hour (14, 16, 18) { at("2026-01-25 $hour:00:00"); is(used('groq', 1, "7200, $model"), '1 by 1', 'the next hour'); }
            at('2026-01-25 20:00:00');
            is(used('groq', 1, "1, $model"), '0 by 0, then limited whisper day max_tpd', 'seconds of a day');
            at('2026-01-26 12:00:00');
            is(used('groq', 1, "1, $model"), '0 by 0, then limited whisper day max_tpd', 'of any 24 hours');
            is(minute_by_minute('groq', '2026-01-28 01:00:00', 101, 20, $model), 2000, 'and requests of a day');
            is(used('groq', 1, "0, $model"), '0 by 0, then limited whisper day max_rpd', 'are over at max_rpd');
        },
    ],
    'Cerebras' => [
        sub {
            my $model = q{'gpt-oss-120b'};
            at('2026-01-15 12:00:00');
            is(used('cerebras', 31, "0, $model"), '30 by 2, then limited total max_rpm', 'two keys of an organization never exceed its max_rpm');
            at('2026-01-15 12:01:01');
            is(used('cerebras', 2, "15000, $model, 5000"), '2 by 2', 'tokens that are not cached');
            is(used('cerebras', 1, "1, $model"), '0 by 0, then limited uncached max_tpm', 'and not one more');
            at('2026-01-15 12:02:02');
            is(used('cerebras', 2, "45000, $model, cached_tokens => 40000"), '2 by 2', 'all tokens');
            is(used('cerebras', 1, "1, $model, cached_tokens => 1"), '0 by 0, then limited total max_tpm', 'and not one more');
            is(minute_by_minute('cerebras', '2026-01-16 00:00:30', 31, 30, $model), 900, 'an hour of full minutes');
            is(used('cerebras', 1, "0, $model"), '0 by 0, then limited hour max_rph', 'is over at max_rph');
            at('2026-01-16 01:02:00');
            is(used('cerebras', 1, "0, $model"), '1 by 1', 'until an hour has gone');
            at('2026-01-17 01:00:00');
            is(corrected('cerebras', "0, $model", 'tokens => 1000000'), 'ok|t', 'tokens of an hour');
            at('2026-01-17 01:59:59');
            is(used('cerebras', 1, "1, $model"), '0 by 0, then limited hour max_tph', 'are over, too');
            at('2026-01-17 03:00:00');
            is(corrected('cerebras', "0, $model", 'tokens => 4000000'), 'ok|t', 'tokens of a day');
            at('2026-01-17 23:59:59');
            is(used('cerebras', 1, "1, $model"), '0 by 0, then limited hour max_tpd', 'are over at max_tpd');
            at('2026-01-18 00:00:00');
            is(used('cerebras', 1, "1, $model"), '1 by 1', 'until midnight');
            my $day = 0;
            for my $hour (0 .. 16) { $day += minute_by_minute('cerebras', sprintf('2026-01-19 %02d:%02d:00', $hour, 2 * $hour), 31, 30, $model); }
            is($day, 14400, 'requests of a day');
            at('2026-01-19 20:00:00');
            is(used('cerebras', 1, "0, $model"), '0 by 0, then limited hour max_rpd', 'are over, too');
        },
    ],
    'Amazon Bedrock' => [
        sub {
            my $model = q{'us.anthropic.claude-opus-4-1-v1:0'};
            at('2026-01-15 12:00:00');
            is(misplaced('bedrock', 'region'), '', 'keys tell the region that they are counted in');
            is(used('bedrock', 51, "0, $model"), '50 by 2, then limited opus 4 max_rpm', 'two keys of an account never exceed its max_rpm');
            is(used('bedrock', 51, q{0, 'amazon.nova-pro-v1:0'}), '51 by 2', 'for one model');
            at('2026-01-15 12:01:01');
            is(used('bedrock', 1, "120000, $model, 20000"), '1 by 1', 'output counts 5 times');
            is(used('bedrock', 1, "1, $model"), '0 by 0, then limited opus 4 max_tpm', 'and fills max_tpm');
            at('2026-01-15 12:02:02');
            is(corrected('bedrock', "120000, $model, 20000", 'tokens => 101000, output_tokens => 1000, cached_tokens => 100000'), 'ok|t', 'what was reserved too much');
            is(used('bedrock', 2, "195000, $model"), '1 by 1, then limited opus 4 max_tpm', 'is free, and so are cache reads');
            is(used('bedrock', 1, q{600001, 'amazon.nova-pro-v1:0'}), '0 by 0, then limited day max_tpd', 'the day counts what all models used');
            is(used('bedrock', 1, q{600000, 'amazon.nova-pro-v1:0'}), '1 by 1', 'up to max_tpd');
            at('2026-01-16 12:00:59');
            is(used('bedrock', 1, "1, $model"), '0 by 0, then limited day max_tpd', 'of 24 hours');
            at('2026-01-16 12:26:00');
            is(used('bedrock', 1, "1, $model"), '1 by 1', 'and no more');
        },
    ],
    'OpenRouter' => [
        sub {
            at('2026-01-15 12:00:00');
            is(used('openrouter', 21, q{0, 'qwen/qwen3:free'}), '20 by 2, then limited free max_rpm', 'two keys never exceed the account\'s max_rpm for free models');
            is(used('openrouter', 21, q{0, 'qwen/qwen3'}), '21 by 2', 'paid models have none');
            is(minute_by_minute('openrouter', '2026-01-16 23:00:00', 51, 20, q{'qwen/qwen3:free'}), 1000, 'a day has max_rpd requests');
            at('2026-01-16 23:59:59');
            is(used('openrouter', 1, q{0, 'qwen/qwen3:free'}), '0 by 0, then limited free max_rpd', 'until midnight UTC');
            at('2026-01-17 00:00:00');
            is(used('openrouter', 1, q{0, 'qwen/qwen3:free'}), '1 by 1', 'and no longer');
            is(used('openrouter', 3, q{0, 'qwen/qwen3', cost => 10000000}, 'agents'), '2 by 1, then limited key max_cost_per_month', 'a key has its credit by month');
            is(used('openrouter', 1, q{0, 'qwen/qwen3', cost => 1000000}, 'chat'), '1 by 1', 'or by day');
            is(used('openrouter', 1, q{0, 'qwen/qwen3', cost => 1}, 'chat'), '0 by 0, then limited key max_cost_per_day', 'and no more');
            at('2026-01-18 00:00:00');
            is(used('openrouter', 1, q{0, 'qwen/qwen3', cost => 500000}, 'chat'), '1 by 1', 'until the next');
            is(used('openrouter', 1, q{0, 'qwen/qwen3', cost => 1}, 'agents'), '0 by 0, then limited key max_cost_per_month', 'while a month goes on');
            at('2026-02-01 00:00:00');
            is(used('openrouter', 1, q{0, 'qwen/qwen3', cost => 1}, 'agents'), '1 by 1', 'until its end');
        },
    ],
    'Together' => [
        sub {
            at('2026-01-15 12:00:00');
            like(refused('together', 'meta-llama/Llama-3.3-70B-Instruct-Turbo'), qr/^(chat|worker)$/, 'a 429 of one key');
            is(selected('together', 'meta-llama/Llama-3.3-70B-Instruct-Turbo'), 'cooling|llama 70b|5000', 'blocks the model for all keys');
            is(used('together', 2, q{0, 'deepseek-ai/DeepSeek-V3'}), '2 by 2', 'and no other');
            at('2026-01-15 12:00:05');
            is(used('together', 2, q{0, 'meta-llama/Llama-3.3-70B-Instruct-Turbo'}), '2 by 2', 'for a short time');
        },
    ],
    'Fireworks' => [
        sub {
            at('2026-01-15 12:00:00');
            is(used('fireworks', 2, q{1818000, output_tokens => 18000, cached_tokens => 1350000}), '2 by 2', 'two keys fill all three limits');
            is(used('fireworks', 1, q{1, cached_tokens => 1}), '0 by 0, then limited prompt max_tpm', 'the prompt');
            at('2026-01-15 12:01:01');
            is(used('fireworks', 1, q{900000}), '1 by 1', 'what is not cached');
            is(used('fireworks', 1, q{1}), '0 by 0, then limited uncached prompt max_tpm', 'has its own limit');
            at('2026-01-15 12:02:02');
            is(used('fireworks', 2, q{18000, output_tokens => 18000}), '2 by 2', 'and output');
            is(used('fireworks', 1, q{1, output_tokens => 1}), '0 by 0, then limited prompt max_output_tpm', 'has its own, too');
        },
    ],
);

my @blocks = blocks_of(slurp_file($page));
my (%of, @providers);
for (@blocks) {
    push @providers, $_->[0] if !$of{ $_->[0] };
    push @{ $of{ $_->[0] } }, $_->[1];
}
is(join(', ', sort keys %of), join(', ', sort keys %checks), 'the page has statements for every provider that has a test, and no others');
for my $provider (grep { $checks{$_} } @providers) {
    my ($statements, $checks) = ($of{$provider}, $checks{$provider});
    is(scalar @$statements, scalar @$checks, "$provider: every block has its test");
    for my $i (0 .. $#$checks) {
        subtest "$provider, block " . ($i + 1) => sub {
            my ($status, undef, $errors) = $node->psql('postgres', $statements->[$i] // 'nothing', on_error_stop => 1);
            is($status, 0, 'its statements run');
            is($errors, '', 'and warn of nothing');
            $checks->[$i]->();
        };
    }
}

# Every line that a reader could copy was run: no statement stands outside of the blocks.
is(scalar(() = slurp_file($page) =~ /^SELECT /mg), scalar(() = join('', map { $_->[1] } @blocks) =~ /^SELECT /mg), 'and all statements were run');
is($session->ask(q{SELECT result FROM keypool_doctor() WHERE "check" = 'quotas'}), 'ok', 'the doctor finds nothing wrong with the quotas');

# A block that is not run would be told.
ok(!eval { blocks_of($_); 1 }, 'a fence that is not known does not pass') for "```SQL\nSELECT 1;\n```\n", "```sql\nSELECT 1;\n", "~~~\nSELECT 1;\n~~~\n", "    SELECT 1;\n";

$session->close;
$node->stop;
done_testing();
