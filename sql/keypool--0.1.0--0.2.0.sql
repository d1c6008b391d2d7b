-- keypool--0.1.0--0.2.0.sql - what ALTER EXTENSION keypool UPDATE changes from 0.1.0 to 0.2.0.
\echo Use "ALTER EXTENSION keypool UPDATE TO '0.2.0'" to load this file. \quit

-- Sessions that run the library of 0.1.0 change states in place: none does from here on.
LOCK TABLE keypool.provider_keys, keypool.key_state, keypool.grants IN ACCESS EXCLUSIVE MODE;

--
-- What depends on what is made again below: views, then functions
--

DROP VIEW keypool.key_usage_window;
DROP VIEW keypool.keys;
DROP FUNCTION @extschema@.keypool_select(text, bigint);
DROP FUNCTION @extschema@.keypool_try_select(text, bigint);
DROP FUNCTION @extschema@.keypool_peek(text, bigint);
DROP FUNCTION @extschema@.keypool_record(uuid, bigint, bigint);
DROP FUNCTION @extschema@.keypool_release(uuid, bigint);
DROP FUNCTION @extschema@.keypool_mark_429(uuid, integer, bigint);
DROP FUNCTION @extschema@.keypool_add_key(text, text, text, integer, bigint, bigint);
DROP FUNCTION @extschema@.keypool_list_keys(text);
DROP FUNCTION @extschema@.keypool_usage(uuid, integer);
DROP FUNCTION @extschema@.keypool_doctor();
DROP TRIGGER before_key_change ON keypool.provider_keys;
DROP TRIGGER after_grant_change ON keypool.grants;
DROP TRIGGER before_state_insert ON keypool.key_state;
DROP TRIGGER before_state_update ON keypool.key_state;
DROP FUNCTION keypool.before_state_change();

--
-- The counters of a key or a quota
--

CREATE TYPE keypool.meter;

CREATE FUNCTION keypool.meter_in(cstring) RETURNS keypool.meter
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_meter_in';
COMMENT ON FUNCTION keypool.meter_in(cstring) IS 'reads a meter from a dump';
REVOKE ALL ON FUNCTION keypool.meter_in(cstring) FROM PUBLIC;

CREATE FUNCTION keypool.meter_out(keypool.meter) RETURNS cstring
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_meter_out';
COMMENT ON FUNCTION keypool.meter_out(keypool.meter) IS 'writes a meter for a dump';
REVOKE ALL ON FUNCTION keypool.meter_out(keypool.meter) FROM PUBLIC;

CREATE FUNCTION keypool.meter_recv(internal) RETURNS keypool.meter
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_meter_recv';
COMMENT ON FUNCTION keypool.meter_recv(internal) IS 'reads a meter from a binary copy';
REVOKE ALL ON FUNCTION keypool.meter_recv(internal) FROM PUBLIC;

CREATE FUNCTION keypool.meter_send(keypool.meter) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_meter_send';
COMMENT ON FUNCTION keypool.meter_send(keypool.meter) IS 'writes a meter for a binary copy';
REVOKE ALL ON FUNCTION keypool.meter_send(keypool.meter) FROM PUBLIC;

CREATE TYPE keypool.meter (
	INPUT = keypool.meter_in,
	OUTPUT = keypool.meter_out,
	RECEIVE = keypool.meter_recv,
	SEND = keypool.meter_send,
	INTERNALLENGTH = 6552,
	ALIGNMENT = double,
	STORAGE = plain
);
COMMENT ON TYPE keypool.meter IS 'the counters of one key or one quota: what is recorded, and what is reserved';

--
-- Tables
--

ALTER TABLE keypool.provider_keys ADD CONSTRAINT provider_id_length
	CHECK (pg_catalog.octet_length(provider_id) OPERATOR(pg_catalog.<=) 255);
ALTER TABLE keypool.provider_keys
	ADD COLUMN fingerprint bytea,
	ADD COLUMN unopened_since timestamptz,
	ADD COLUMN account text,
	ADD COLUMN models text[],
	ADD COLUMN except_models text[],
	ADD COLUMN weight integer NOT NULL DEFAULT 1 CONSTRAINT weight_range
		CHECK (weight OPERATOR(pg_catalog.>=) 1 AND weight OPERATOR(pg_catalog.<=) 1000),
	ADD COLUMN max_output_tpm bigint CONSTRAINT max_output_tpm_not_negative CHECK (max_output_tpm OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_rpd bigint CONSTRAINT max_rpd_not_negative CHECK (max_rpd OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_tpd bigint CONSTRAINT max_tpd_not_negative CHECK (max_tpd OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_requests_per_month bigint CONSTRAINT max_requests_per_month_not_negative
		CHECK (max_requests_per_month OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_tokens_per_month bigint CONSTRAINT max_tokens_per_month_not_negative
		CHECK (max_tokens_per_month OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_cost_per_day bigint CONSTRAINT max_cost_per_day_not_negative CHECK (max_cost_per_day OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_cost_per_month bigint CONSTRAINT max_cost_per_month_not_negative
		CHECK (max_cost_per_month OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN max_in_flight bigint CONSTRAINT max_in_flight_not_negative CHECK (max_in_flight OPERATOR(pg_catalog.>=) 0),
	ADD COLUMN burst_seconds smallint CONSTRAINT burst_seconds_range
		CHECK (burst_seconds OPERATOR(pg_catalog.>=) 1 AND burst_seconds OPERATOR(pg_catalog.<=) 30),
	ADD COLUMN attributes jsonb,
	ADD COLUMN expires_at timestamptz;
CREATE INDEX provider_keys_fingerprint ON keypool.provider_keys (provider_id, fingerprint);
COMMENT ON COLUMN keypool.provider_keys.fingerprint IS 'tells the same secret again; NULL: keypool_heal() makes it';
COMMENT ON COLUMN keypool.provider_keys.unopened_since IS 'since when keypool_heal() finds that the secret does not open although its master key is there; NULL: it opens, or was not tried';
COMMENT ON COLUMN keypool.provider_keys.account IS 'what the provider counts the key under, such as org-1/proj-a; NULL: nothing';
COMMENT ON COLUMN keypool.provider_keys.models IS 'patterns of the models that the key serves, such as gpt-4o*; NULL: all';
COMMENT ON COLUMN keypool.provider_keys.except_models IS 'patterns of the models that it does not serve; NULL: none';
COMMENT ON COLUMN keypool.provider_keys.weight IS 'how many turns the key gets for one of a key of weight 1';
COMMENT ON COLUMN keypool.provider_keys.max_output_tpm IS 'output tokens in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_rpd IS 'requests in a day; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_tpd IS 'tokens in a day; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_requests_per_month IS 'requests in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_tokens_per_month IS 'tokens in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_cost_per_day IS 'cost in a day, in a unit of yours; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_cost_per_month IS 'cost in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_in_flight IS 'calls that are open at once; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.burst_seconds IS 'in no interval of so many seconds more than that share of max_rpm, rounded up';
COMMENT ON COLUMN keypool.provider_keys.attributes IS 'given out with the key: base URL, region, organization; not secret';
COMMENT ON COLUMN keypool.provider_keys.expires_at IS 'from then on the key is not selected; NULL: never';
ALTER TABLE keypool.grants REPLICA IDENTITY FULL;
-- Nothing, unless default_table_access_method was another one when 0.1.0 was made.
ALTER TABLE keypool.provider_keys SET ACCESS METHOD heap;
ALTER TABLE keypool.grants SET ACCESS METHOD heap;

CREATE TABLE keypool.quotas (
	id uuid CONSTRAINT quotas_pkey PRIMARY KEY,
	provider_id text COLLATE pg_catalog."C" NOT NULL
		CONSTRAINT provider_id_length CHECK (pg_catalog.octet_length(provider_id) OPERATOR(pg_catalog.<=) 255),
	name text COLLATE pg_catalog."C" NOT NULL
		CONSTRAINT name_length CHECK (pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 255),
	account text,
	models text[],
	except_models text[],
	max_rpm bigint CONSTRAINT max_rpm_not_negative CHECK (max_rpm OPERATOR(pg_catalog.>=) 0),
	max_tpm bigint CONSTRAINT max_tpm_not_negative CHECK (max_tpm OPERATOR(pg_catalog.>=) 0),
	max_output_tpm bigint CONSTRAINT max_output_tpm_not_negative CHECK (max_output_tpm OPERATOR(pg_catalog.>=) 0),
	max_rph bigint CONSTRAINT max_rph_not_negative CHECK (max_rph OPERATOR(pg_catalog.>=) 0),
	max_tph bigint CONSTRAINT max_tph_not_negative CHECK (max_tph OPERATOR(pg_catalog.>=) 0),
	max_rpd bigint CONSTRAINT max_rpd_not_negative CHECK (max_rpd OPERATOR(pg_catalog.>=) 0),
	max_tpd bigint CONSTRAINT max_tpd_not_negative CHECK (max_tpd OPERATOR(pg_catalog.>=) 0),
	max_requests_per_month bigint CONSTRAINT max_requests_per_month_not_negative
		CHECK (max_requests_per_month OPERATOR(pg_catalog.>=) 0),
	max_tokens_per_month bigint CONSTRAINT max_tokens_per_month_not_negative
		CHECK (max_tokens_per_month OPERATOR(pg_catalog.>=) 0),
	max_cost_per_day bigint CONSTRAINT max_cost_per_day_not_negative CHECK (max_cost_per_day OPERATOR(pg_catalog.>=) 0),
	max_cost_per_month bigint CONSTRAINT max_cost_per_month_not_negative
		CHECK (max_cost_per_month OPERATOR(pg_catalog.>=) 0),
	max_in_flight bigint CONSTRAINT max_in_flight_not_negative CHECK (max_in_flight OPERATOR(pg_catalog.>=) 0),
	burst_seconds smallint CONSTRAINT burst_seconds_range
		CHECK (burst_seconds OPERATOR(pg_catalog.>=) 1 AND burst_seconds OPERATOR(pg_catalog.<=) 30),
	counts text COLLATE pg_catalog."C" NOT NULL DEFAULT 'tokens' CONSTRAINT known_counts
		CHECK (counts OPERATOR(pg_catalog.=) ANY (ARRAY['tokens', 'prompt', 'input', 'uncached'])),
	output_weight integer NOT NULL DEFAULT 1 CONSTRAINT output_weight_range
		CHECK (output_weight OPERATOR(pg_catalog.>=) 1 AND output_weight OPERATOR(pg_catalog.<=) 1000),
	time_zone text,
	day text COLLATE pg_catalog."C" NOT NULL DEFAULT 'calendar' CONSTRAINT known_day
		CHECK (day OPERATOR(pg_catalog.=) ANY (ARRAY['calendar', 'rolling'])),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.now()
) USING heap;
CREATE UNIQUE INDEX quotas_name ON keypool.quotas (provider_id, name);
REVOKE ALL ON TABLE keypool.quotas FROM PUBLIC;

COMMENT ON TABLE keypool.quotas IS 'limits that hold for several keys of a provider together; ordinary, transactional data';
COMMENT ON COLUMN keypool.quotas.id IS 'made if it is not given; never changes';
COMMENT ON COLUMN keypool.quotas.provider_id IS 'the provider whose keys it is for; never changes';
COMMENT ON COLUMN keypool.quotas.name IS 'what people and answers call it';
COMMENT ON COLUMN keypool.quotas.account IS 'it holds for the keys of this account, and of those below it; NULL: for all keys of the provider';
COMMENT ON COLUMN keypool.quotas.models IS 'patterns of the models that it holds for; NULL: all';
COMMENT ON COLUMN keypool.quotas.except_models IS 'patterns of the models that it does not hold for; NULL: none';
COMMENT ON COLUMN keypool.quotas.max_rpm IS 'requests in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_tpm IS 'tokens in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_output_tpm IS 'output tokens in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_rph IS 'requests in any hour; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_tph IS 'tokens in any hour; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_rpd IS 'requests in a day; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_tpd IS 'tokens in a day; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_requests_per_month IS 'requests in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_tokens_per_month IS 'tokens in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_cost_per_day IS 'cost in a day, in a unit of yours; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_cost_per_month IS 'cost in a month; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.max_in_flight IS 'calls that are open at once; NULL or 0: no limit';
COMMENT ON COLUMN keypool.quotas.burst_seconds IS 'in no interval of so many seconds more than that share of max_rpm, rounded up';
COMMENT ON COLUMN keypool.quotas.counts IS 'which tokens count: tokens, prompt (without output), input (without output and cached), uncached';
COMMENT ON COLUMN keypool.quotas.output_weight IS 'how many times each output token counts';
COMMENT ON COLUMN keypool.quotas.time_zone IS 'in which days and months begin; NULL: that of the provider';
COMMENT ON COLUMN keypool.quotas.day IS 'calendar: from midnight; rolling: the last 24 hours';
COMMENT ON COLUMN keypool.quotas.created_at IS 'when it was made';
COMMENT ON COLUMN keypool.quotas.updated_at IS 'when it was last changed';

CREATE TABLE keypool.providers (
	provider_id text COLLATE pg_catalog."C" CONSTRAINT providers_pkey PRIMARY KEY
		CONSTRAINT provider_id_length CHECK (pg_catalog.octet_length(provider_id) OPERATOR(pg_catalog.<=) 255),
	strategy text COLLATE pg_catalog."C" CONSTRAINT known_strategy
		CHECK (strategy OPERATOR(pg_catalog.=) ANY (ARRAY['rotate', 'fill_first'])),
	time_zone text,
	default_tokens bigint CONSTRAINT default_tokens_range
		CHECK (default_tokens OPERATOR(pg_catalog.>=) 0 AND default_tokens OPERATOR(pg_catalog.<=) 1000000000),
	default_cooldown integer CONSTRAINT default_cooldown_positive CHECK (default_cooldown OPERATOR(pg_catalog.>=) 1),
	max_cooldown integer CONSTRAINT max_cooldown_positive CHECK (max_cooldown OPERATOR(pg_catalog.>=) 1),
	rate_limit_scope text COLLATE pg_catalog."C" CONSTRAINT known_rate_limit_scope
		CHECK (rate_limit_scope OPERATOR(pg_catalog.=) ANY (ARRAY['key', 'model', 'account'])),
	call_timeout integer CONSTRAINT call_timeout_range
		CHECK (call_timeout OPERATOR(pg_catalog.>=) 60 AND call_timeout OPERATOR(pg_catalog.<=) 14400),
	breaker_threshold integer CONSTRAINT breaker_threshold_range
		CHECK (breaker_threshold OPERATOR(pg_catalog.>=) 0 AND breaker_threshold OPERATOR(pg_catalog.<=) 1000)
) USING heap;
REVOKE ALL ON TABLE keypool.providers FROM PUBLIC;

COMMENT ON TABLE keypool.providers IS 'what is not as by default for a provider; NULL: the default';
COMMENT ON COLUMN keypool.providers.provider_id IS 'the provider';
COMMENT ON COLUMN keypool.providers.strategy IS 'rotate, the default: keys take turns; fill_first: one key until it is full';
COMMENT ON COLUMN keypool.providers.time_zone IS 'in which days and months begin; UTC by default';
COMMENT ON COLUMN keypool.providers.default_tokens IS 'what a selection reserves that says no tokens; 0 by default';
COMMENT ON COLUMN keypool.providers.default_cooldown IS 'seconds that a 429 blocks which tells no time; by default keypool.default_cooldown';
COMMENT ON COLUMN keypool.providers.max_cooldown IS 'seconds that a 429 blocks at most; by default keypool.max_cooldown';
COMMENT ON COLUMN keypool.providers.rate_limit_scope IS 'whom a 429 blocks that no quota is to blame for: key, the default, model or account';
COMMENT ON COLUMN keypool.providers.call_timeout IS 'seconds after which a call that nobody settles is taken for ended; 1020 by default';
COMMENT ON COLUMN keypool.providers.breaker_threshold IS 'failures of the provider in a row after which a key rests; 0: never; by default keypool.breaker_threshold';

CREATE TABLE keypool.error_rules (
	provider text COLLATE pg_catalog."C" NOT NULL DEFAULT '*' CONSTRAINT provider_length
		CHECK (pg_catalog.octet_length(provider) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(provider) OPERATOR(pg_catalog.<=) 255),
	http_status integer CONSTRAINT http_status_range
		CHECK (http_status OPERATOR(pg_catalog.>=) 100 AND http_status OPERATOR(pg_catalog.<=) 999),
	error_code text COLLATE pg_catalog."C" CONSTRAINT error_code_length
		CHECK (pg_catalog.octet_length(error_code) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(error_code) OPERATOR(pg_catalog.<=) 63),
	class text COLLATE pg_catalog."C" NOT NULL CONSTRAINT known_class
		CHECK (class OPERATOR(pg_catalog.=) ANY (ARRAY['ok', 'rate', 'exhausted', 'billing', 'auth', 'forbidden', 'overloaded',
			'server', 'client', 'unsent'])),
	scope text COLLATE pg_catalog."C" CONSTRAINT known_scope
		CHECK (scope OPERATOR(pg_catalog.=) ANY (ARRAY['quota', 'key', 'model', 'account']) OR scope OPERATOR(pg_catalog.~) '^quota:.'),
	CONSTRAINT error_rules_key UNIQUE NULLS NOT DISTINCT (provider, http_status, error_code),
	CONSTRAINT says_when CHECK (http_status IS NOT NULL OR error_code IS NOT NULL)
) USING heap;
ALTER TABLE keypool.error_rules REPLICA IDENTITY FULL;
REVOKE ALL ON TABLE keypool.error_rules FROM PUBLIC;

COMMENT ON TABLE keypool.error_rules IS 'of what class answers are where the built-in rules do not do';
COMMENT ON COLUMN keypool.error_rules.provider IS 'a pattern of providers, such as openai* or *';
COMMENT ON COLUMN keypool.error_rules.http_status IS 'the status of the answer; NULL: any, or none';
COMMENT ON COLUMN keypool.error_rules.error_code IS 'a pattern of one of its error codes, such as *_quota; NULL: any, or none';
COMMENT ON COLUMN keypool.error_rules.class IS 'ok, rate, exhausted, billing, auth, forbidden, overloaded, server, client or unsent';
COMMENT ON COLUMN keypool.error_rules.scope IS 'what a rate or exhausted blocks, as the scope of keypool_mark_429(); NULL: the usual';

CREATE TABLE keypool.key_meters (
	key_id uuid CONSTRAINT key_meters_pkey PRIMARY KEY,
	meter keypool.meter NOT NULL
) USING heap;
REVOKE ALL ON TABLE keypool.key_meters FROM PUBLIC;

COMMENT ON TABLE keypool.key_meters IS 'one row a key, changed in place by the functions; read it with keypool_list_keys() and keypool_usage()';
COMMENT ON COLUMN keypool.key_meters.key_id IS 'provider_keys.id';
COMMENT ON COLUMN keypool.key_meters.meter IS 'the counters';

CREATE TABLE keypool.quota_meters (
	quota_id uuid CONSTRAINT quota_meters_pkey PRIMARY KEY,
	meter keypool.meter NOT NULL
) USING heap;
REVOKE ALL ON TABLE keypool.quota_meters FROM PUBLIC;

COMMENT ON TABLE keypool.quota_meters IS 'one row a quota, changed in place by the functions; read it with keypool_list_quotas()';
COMMENT ON COLUMN keypool.quota_meters.quota_id IS 'quotas.id';
COMMENT ON COLUMN keypool.quota_meters.meter IS 'the counters';

-- Totals, cooldowns, windows and open reservations stay. Before there are triggers.
INSERT INTO keypool.key_meters (key_id, meter)
	SELECT key_id, keypool.meter_in(keypool.state_out(state)) FROM keypool.key_state;
DROP TABLE keypool.key_state;
-- The type and its functions depend on each other, so that only CASCADE drops them. It must take nothing of a user's.
DO $$
DECLARE
	user_object text;
BEGIN
	SELECT INTO user_object pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
	FROM pg_catalog.pg_type t
	JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
		AND d.refobjid OPERATOR(pg_catalog.=) t.oid AND d.deptype OPERATOR(pg_catalog.<>) 'i'
	WHERE (t.oid OPERATOR(pg_catalog.=) 'keypool.state'::pg_catalog.regtype
			OR t.typelem OPERATOR(pg_catalog.=) 'keypool.state'::pg_catalog.regtype)
		AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_depend own
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) own.refobjid
				AND e.extname OPERATOR(pg_catalog.=) 'keypool'
			WHERE own.classid OPERATOR(pg_catalog.=) d.classid AND own.objid OPERATOR(pg_catalog.=) d.objid
				AND own.deptype OPERATOR(pg_catalog.=) 'e');
	IF FOUND THEN
		RAISE EXCEPTION 'something that is not keypool''s depends on the type keypool.state'
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = user_object, HINT = 'Drop it, or make it of the type text.';
	END IF;
END $$;
DROP TYPE keypool.state CASCADE;

-- Dumps of 0.1.0 bring their rows for this.
CREATE VIEW keypool.key_state AS SELECT key_id, meter AS state FROM keypool.key_meters;
COMMENT ON VIEW keypool.key_state IS 'key_meters, as dumps of 0.1.0 name it';
REVOKE ALL ON TABLE keypool.key_state FROM PUBLIC;

CREATE TABLE keypool.wakeups (
	slot integer NOT NULL,
	ring bytea NOT NULL
) USING heap;
ALTER TABLE keypool.wakeups ALTER COLUMN ring SET STORAGE PLAIN;
INSERT INTO keypool.wakeups
	SELECT slot, pg_catalog.decode(pg_catalog.repeat('00', 8016), 'hex') FROM pg_catalog.generate_series(0, 15) slot;
REVOKE ALL ON TABLE keypool.wakeups FROM PUBLIC;

COMMENT ON TABLE keypool.wakeups IS 'where sessions tell each other which full or blocked keys and quotas have room again; changed in place, and never grows';
COMMENT ON COLUMN keypool.wakeups.slot IS 'which providers it is for, by a hash of their names; from 8 on, the line of those who wait for them';
COMMENT ON COLUMN keypool.wakeups.ring IS 'how many keys and quotas were told of, and the ids of the last 500; or the sessions that wait, in the order in which they came';

CREATE TABLE keypool.refusals (
	provider_id text COLLATE pg_catalog."C" NOT NULL,
	counts bytea NOT NULL
) USING heap;
ALTER TABLE keypool.refusals ALTER COLUMN counts SET STORAGE PLAIN;
CREATE INDEX refusals_provider ON keypool.refusals (provider_id);
INSERT INTO keypool.refusals
	SELECT DISTINCT provider_id, pg_catalog.decode(pg_catalog.repeat('00', 1952), 'hex') FROM keypool.provider_keys;
REVOKE ALL ON TABLE keypool.refusals FROM PUBLIC;

COMMENT ON TABLE keypool.refusals IS 'how often providers had no key to give, one row a provider, changed in place; read it with keypool_provider_usage() and keypool_metrics()';
COMMENT ON COLUMN keypool.refusals.provider_id IS 'the provider';
COMMENT ON COLUMN keypool.refusals.counts IS 'by status: in all, and by hour and day; and since when it is short';

CREATE TABLE keypool.event_log (
	id bigint NOT NULL,
	at timestamptz NOT NULL,
	of_calls boolean NOT NULL,
	event text COLLATE pg_catalog."C" NOT NULL,
	provider_id text COLLATE pg_catalog."C",
	subject uuid,
	subject_name text,
	role text NOT NULL,
	session_role text NOT NULL,
	details jsonb
) USING heap;
ALTER TABLE keypool.event_log REPLICA IDENTITY FULL;
CREATE INDEX event_log_age ON keypool.event_log (of_calls, id);
CREATE SEQUENCE keypool.event_ids;
REVOKE ALL ON TABLE keypool.event_log FROM PUBLIC;
REVOKE ALL ON SEQUENCE keypool.event_ids FROM PUBLIC;

COMMENT ON TABLE keypool.event_log IS 'who changed what, and what went wrong; the newest are kept; read it with keypool_events()';
COMMENT ON COLUMN keypool.event_log.id IS 'grows, with gaps';
COMMENT ON COLUMN keypool.event_log.at IS 'when it happened';
COMMENT ON COLUMN keypool.event_log.of_calls IS 'whether it happened to calls; else somebody changed the configuration';
COMMENT ON COLUMN keypool.event_log.event IS 'what happened, such as key_changed';
COMMENT ON COLUMN keypool.event_log.provider_id IS 'the provider that it concerns; NULL: several, or none';
COMMENT ON COLUMN keypool.event_log.subject IS 'the id of the key or the quota; NULL: it concerns none';
COMMENT ON COLUMN keypool.event_log.subject_name IS 'the label of the key, the name of the quota, the role, or the providers of the error rule';
COMMENT ON COLUMN keypool.event_log.role IS 'who did it';
COMMENT ON COLUMN keypool.event_log.session_role IS 'as whom the session had logged in';
COMMENT ON COLUMN keypool.event_log.details IS 'names of the changed columns, and old and new values of limits';
COMMENT ON SEQUENCE keypool.event_ids IS 'the ids of keypool.event_log';

CREATE TABLE keypool.master_keys (
	id text COLLATE pg_catalog."C" CONSTRAINT master_keys_pkey PRIMARY KEY,
	fingerprint text COLLATE pg_catalog."C" NOT NULL,
	first_used_at timestamptz NOT NULL DEFAULT pg_catalog.now()
) USING heap;
REVOKE ALL ON TABLE keypool.master_keys FROM PUBLIC;

COMMENT ON TABLE keypool.master_keys IS 'the master keys that this database knows by their ids; a keyring with another key under one of them is refused';
COMMENT ON COLUMN keypool.master_keys.id IS 'the id of its line in the keyring';
COMMENT ON COLUMN keypool.master_keys.fingerprint IS 'what keypool.keyring shows of it';
COMMENT ON COLUMN keypool.master_keys.first_used_at IS 'when it was first seen to seal or to open a secret here';

SELECT pg_catalog.pg_extension_config_dump('keypool.quotas', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.providers', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.error_rules', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.key_meters', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.quota_meters', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.master_keys', '');

--
-- Triggers
--

CREATE FUNCTION keypool.before_quota_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_quota_change';
COMMENT ON FUNCTION keypool.before_quota_change() IS 'makes the id, checks what is given, and tells every session that a change begins';
REVOKE ALL ON FUNCTION keypool.before_quota_change() FROM PUBLIC;

CREATE FUNCTION keypool.after_quota_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_after_quota_change';
COMMENT ON FUNCTION keypool.after_quota_change() IS 'makes or removes the meter, and tells every session of the change';
REVOKE ALL ON FUNCTION keypool.after_quota_change() FROM PUBLIC;

CREATE FUNCTION keypool.before_provider_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_provider_change';
COMMENT ON FUNCTION keypool.before_provider_change() IS 'checks what is given, and tells every session that a change begins';
REVOKE ALL ON FUNCTION keypool.before_provider_change() FROM PUBLIC;

CREATE FUNCTION keypool.after_provider_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_after_provider_change';
COMMENT ON FUNCTION keypool.after_provider_change() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.after_provider_change() FROM PUBLIC;

CREATE FUNCTION keypool.before_meter_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_meter_change';
COMMENT ON FUNCTION keypool.before_meter_change() IS 'locks the keys or quotas before any meter, tells every session that a change begins, lets a restored meter replace the fresh one, and refuses UPDATE';
REVOKE ALL ON FUNCTION keypool.before_meter_change() FROM PUBLIC;

CREATE FUNCTION keypool.insert_key_state() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_insert_key_state';
COMMENT ON FUNCTION keypool.insert_key_state() IS 'takes in a row of a dump of 0.1.0';
REVOKE ALL ON FUNCTION keypool.insert_key_state() FROM PUBLIC;

CREATE FUNCTION keypool.tell_sessions() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_tell_sessions';
COMMENT ON FUNCTION keypool.tell_sessions() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.tell_sessions() FROM PUBLIC;

CREATE FUNCTION keypool.before_grant_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_grant_change';
COMMENT ON FUNCTION keypool.before_grant_change() IS 'lets nobody but the owner grant, and tells every session that a change begins';
REVOKE ALL ON FUNCTION keypool.before_grant_change() FROM PUBLIC;

CREATE FUNCTION keypool.tell_rules_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_tell_rules_change';
COMMENT ON FUNCTION keypool.tell_rules_change() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.tell_rules_change() FROM PUBLIC;

CREATE FUNCTION keypool.before_master_key_insert() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_master_key_insert';
COMMENT ON FUNCTION keypool.before_master_key_insert() IS 'keeps what is known of an id when a restore or replication brings it again';
REVOKE ALL ON FUNCTION keypool.before_master_key_insert() FROM PUBLIC;

COMMENT ON FUNCTION keypool.before_key_change() IS 'makes the id, checks what is given, seals the secret, and tells every session that a change begins';
COMMENT ON FUNCTION keypool.after_key_change() IS 'makes or removes the meter, and tells every session of the change';
CREATE TRIGGER before_key_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.provider_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_key_change();
CREATE TRIGGER before_quota_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.quotas
	FOR EACH ROW EXECUTE FUNCTION keypool.before_quota_change();
CREATE TRIGGER after_quota_change AFTER INSERT OR UPDATE OR DELETE ON keypool.quotas
	FOR EACH ROW EXECUTE FUNCTION keypool.after_quota_change();
CREATE TRIGGER after_quota_truncate AFTER TRUNCATE ON keypool.quotas
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_quota_change();
CREATE TRIGGER before_provider_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.providers
	FOR EACH ROW EXECUTE FUNCTION keypool.before_provider_change();
CREATE TRIGGER after_provider_change AFTER INSERT OR UPDATE OR DELETE ON keypool.providers
	FOR EACH ROW EXECUTE FUNCTION keypool.after_provider_change();
CREATE TRIGGER after_provider_truncate AFTER TRUNCATE ON keypool.providers
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_provider_change();
CREATE TRIGGER before_meter_insert BEFORE INSERT ON keypool.key_meters
	FOR EACH ROW EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER before_meter_statement BEFORE INSERT OR DELETE ON keypool.key_meters
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER before_meter_update BEFORE UPDATE ON keypool.key_meters
	FOR EACH ROW EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER after_meter_statement AFTER INSERT OR DELETE ON keypool.key_meters
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_sessions();
CREATE TRIGGER before_meter_insert BEFORE INSERT ON keypool.quota_meters
	FOR EACH ROW EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER before_meter_statement BEFORE INSERT OR DELETE ON keypool.quota_meters
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER before_meter_update BEFORE UPDATE ON keypool.quota_meters
	FOR EACH ROW EXECUTE FUNCTION keypool.before_meter_change();
CREATE TRIGGER after_meter_statement AFTER INSERT OR DELETE ON keypool.quota_meters
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_sessions();
CREATE TRIGGER insert_key_state INSTEAD OF INSERT ON keypool.key_state
	FOR EACH ROW EXECUTE FUNCTION keypool.insert_key_state();
CREATE TRIGGER before_grant_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.before_grant_change();
CREATE TRIGGER after_grant_change AFTER INSERT OR UPDATE OR DELETE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.after_grant_change();
CREATE TRIGGER after_grant_truncate AFTER TRUNCATE ON keypool.grants
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_grant_change();
CREATE TRIGGER before_error_rule_statement BEFORE INSERT OR UPDATE OR DELETE ON keypool.error_rules
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_rules_change();
CREATE TRIGGER after_error_rule_change AFTER INSERT OR UPDATE OR DELETE ON keypool.error_rules
	FOR EACH ROW EXECUTE FUNCTION keypool.tell_rules_change();
CREATE TRIGGER after_error_rule_truncate AFTER TRUNCATE ON keypool.error_rules
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_rules_change();
CREATE TRIGGER before_master_key_insert BEFORE INSERT ON keypool.master_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_master_key_insert();
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
ALTER TABLE keypool.quotas ENABLE ALWAYS TRIGGER before_quota_change;
ALTER TABLE keypool.quotas ENABLE ALWAYS TRIGGER after_quota_change;
ALTER TABLE keypool.quotas ENABLE ALWAYS TRIGGER after_quota_truncate;
ALTER TABLE keypool.providers ENABLE ALWAYS TRIGGER before_provider_change;
ALTER TABLE keypool.providers ENABLE ALWAYS TRIGGER after_provider_change;
ALTER TABLE keypool.providers ENABLE ALWAYS TRIGGER after_provider_truncate;
ALTER TABLE keypool.key_meters ENABLE ALWAYS TRIGGER before_meter_insert;
ALTER TABLE keypool.key_meters ENABLE ALWAYS TRIGGER before_meter_statement;
ALTER TABLE keypool.key_meters ENABLE ALWAYS TRIGGER before_meter_update;
ALTER TABLE keypool.key_meters ENABLE ALWAYS TRIGGER after_meter_statement;
ALTER TABLE keypool.quota_meters ENABLE ALWAYS TRIGGER before_meter_insert;
ALTER TABLE keypool.quota_meters ENABLE ALWAYS TRIGGER before_meter_statement;
ALTER TABLE keypool.quota_meters ENABLE ALWAYS TRIGGER before_meter_update;
ALTER TABLE keypool.quota_meters ENABLE ALWAYS TRIGGER after_meter_statement;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER before_grant_change;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_change;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_truncate;
ALTER TABLE keypool.error_rules ENABLE ALWAYS TRIGGER before_error_rule_statement;
ALTER TABLE keypool.error_rules ENABLE ALWAYS TRIGGER after_error_rule_change;
ALTER TABLE keypool.error_rules ENABLE ALWAYS TRIGGER after_error_rule_truncate;
ALTER TABLE keypool.master_keys ENABLE ALWAYS TRIGGER before_master_key_insert;
COMMENT ON TRIGGER before_key_change ON keypool.provider_keys IS 'makes the id, checks what is given, seals the secret, and tells every session that a change begins';
COMMENT ON TRIGGER before_quota_change ON keypool.quotas IS 'makes the id, checks what is given, and tells every session that a change begins';
COMMENT ON TRIGGER after_quota_change ON keypool.quotas IS 'makes or removes the meter, and tells every session of the change';
COMMENT ON TRIGGER after_quota_truncate ON keypool.quotas IS 'removes the meters, and tells every session of the change';
COMMENT ON TRIGGER before_provider_change ON keypool.providers IS 'checks what is given, and tells every session that a change begins';
COMMENT ON TRIGGER after_provider_change ON keypool.providers IS 'tells every session of the change';
COMMENT ON TRIGGER after_provider_truncate ON keypool.providers IS 'tells every session of the change';
COMMENT ON TRIGGER before_meter_insert ON keypool.key_meters IS 'lets a restored meter replace the fresh one';
COMMENT ON TRIGGER before_meter_statement ON keypool.key_meters IS 'locks the keys before any meter, and tells every session that a change begins';
COMMENT ON TRIGGER before_meter_update ON keypool.key_meters IS 'refuses UPDATE: meters are changed in place';
COMMENT ON TRIGGER after_meter_statement ON keypool.key_meters IS 'tells every session of the change';
COMMENT ON TRIGGER before_meter_insert ON keypool.quota_meters IS 'lets a restored meter replace the fresh one';
COMMENT ON TRIGGER before_meter_statement ON keypool.quota_meters IS 'locks the quotas before any meter, and tells every session that a change begins';
COMMENT ON TRIGGER before_meter_update ON keypool.quota_meters IS 'refuses UPDATE: meters are changed in place';
COMMENT ON TRIGGER after_meter_statement ON keypool.quota_meters IS 'tells every session of the change';
COMMENT ON TRIGGER insert_key_state ON keypool.key_state IS 'takes in a row of a dump of 0.1.0';
COMMENT ON TRIGGER before_grant_change ON keypool.grants IS 'lets nobody but the owner grant, and tells every session that a change begins';
COMMENT ON TRIGGER after_grant_change ON keypool.grants IS 'tells every session of the change';
COMMENT ON TRIGGER after_grant_truncate ON keypool.grants IS 'tells every session of the change';
COMMENT ON TRIGGER before_error_rule_statement ON keypool.error_rules IS 'tells every session that a change begins';
COMMENT ON TRIGGER after_error_rule_change ON keypool.error_rules IS 'tells every session of the change';
COMMENT ON TRIGGER after_error_rule_truncate ON keypool.error_rules IS 'tells every session of the change';
COMMENT ON TRIGGER before_master_key_insert ON keypool.master_keys IS 'keeps what is known of an id when a restore or replication brings it again';
COMMENT ON TRIGGER after_key_change ON keypool.provider_keys IS 'makes or removes the meter, and tells every session of the change';
COMMENT ON TRIGGER after_key_truncate ON keypool.provider_keys IS 'removes the meters, and tells every session of the change';

--
-- Functions
--

CREATE FUNCTION @extschema@.keypool_select(
	provider text, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	max_wait interval DEFAULT NULL, cached_tokens bigint DEFAULT NULL,
	OUT key_id uuid, OUT key_value text, OUT lease text, OUT key_label text, OUT priority integer, OUT max_rpm bigint,
	OUT max_tpm bigint, OUT status text, OUT retry_after_ms integer, OUT provider_id text, OUT attributes jsonb,
	OUT blocked_by text, OUT blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_select';
COMMENT ON FUNCTION @extschema@.keypool_select(text, bigint, text, bigint, bigint, text, uuid[], interval, bigint) IS 'hands out the best key of a provider, decrypted and reserved; raises KP429, KP404, KP413 or KP401 if there is none';
REVOKE ALL ON FUNCTION @extschema@.keypool_select(text, bigint, text, bigint, bigint, text, uuid[], interval, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_try_select(
	provider text, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	max_wait interval DEFAULT NULL, cached_tokens bigint DEFAULT NULL,
	OUT key_id uuid, OUT key_value text, OUT lease text, OUT key_label text, OUT priority integer, OUT max_rpm bigint,
	OUT max_tpm bigint, OUT status text, OUT retry_after_ms integer, OUT provider_id text, OUT attributes jsonb,
	OUT blocked_by text, OUT blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_try_select';
COMMENT ON FUNCTION @extschema@.keypool_try_select(text, bigint, text, bigint, bigint, text, uuid[], interval, bigint) IS 'like keypool_select, but says in status and retry_after_ms why there is no key';
REVOKE ALL ON FUNCTION @extschema@.keypool_try_select(text, bigint, text, bigint, bigint, text, uuid[], interval, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_select_first(
	providers text[], tokens bigint DEFAULT NULL, models text[] DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	max_wait interval DEFAULT NULL, cached_tokens bigint DEFAULT NULL,
	OUT key_id uuid, OUT key_value text, OUT lease text, OUT key_label text, OUT priority integer, OUT max_rpm bigint,
	OUT max_tpm bigint, OUT status text, OUT retry_after_ms integer, OUT provider_id text, OUT attributes jsonb,
	OUT blocked_by text, OUT blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_select_first';
COMMENT ON FUNCTION @extschema@.keypool_select_first(text[], bigint, text[], bigint, bigint, text, uuid[], interval, bigint) IS 'like keypool_try_select, of the first of several providers that has a key now';
REVOKE ALL ON FUNCTION @extschema@.keypool_select_first(text[], bigint, text[], bigint, bigint, text, uuid[], interval, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_peek(
	provider text, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL,
	OUT key_id uuid, OUT key_value text, OUT lease text, OUT key_label text, OUT priority integer, OUT max_rpm bigint,
	OUT max_tpm bigint, OUT status text, OUT retry_after_ms integer, OUT provider_id text, OUT attributes jsonb,
	OUT blocked_by text, OUT blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_peek';
COMMENT ON FUNCTION @extschema@.keypool_peek(text, bigint, text, bigint, bigint, text, uuid[], bigint) IS 'what keypool_select would answer now, without the secret; changes nothing, works on a standby';
REVOKE ALL ON FUNCTION @extschema@.keypool_peek(text, bigint, text, bigint, bigint, text, uuid[], bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_select_many(
	provider text, count bigint, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL)
	RETURNS TABLE (
		key_id uuid, key_value text, lease text, key_label text, priority integer, max_rpm bigint,
		max_tpm bigint, status text, retry_after_ms integer, provider_id text, attributes jsonb,
		blocked_by text, blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_select_many';
COMMENT ON FUNCTION @extschema@.keypool_select_many(text, bigint, bigint, text, bigint, bigint, text, uuid[], bigint) IS 'as many selections as are wanted, and if there are fewer, a row that says why';
REVOKE ALL ON FUNCTION @extschema@.keypool_select_many(text, bigint, bigint, text, bigint, bigint, text, uuid[], bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_explain_select(
	provider text, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, affinity text DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL)
	RETURNS TABLE (
		key_id uuid, key_value text, lease text, key_label text, priority integer, max_rpm bigint,
		max_tpm bigint, status text, retry_after_ms integer, provider_id text, attributes jsonb,
		blocked_by text, blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_explain_select';
COMMENT ON FUNCTION @extschema@.keypool_explain_select(text, bigint, text, bigint, bigint, text, uuid[], bigint) IS 'what keypool_peek would answer if there were only this key, for each key of a provider; changes nothing';
REVOKE ALL ON FUNCTION @extschema@.keypool_explain_select(text, bigint, text, bigint, bigint, text, uuid[], bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_record(
	key uuid, tokens bigint DEFAULT NULL, lease text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL, cost bigint DEFAULT NULL, model text DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_record';
COMMENT ON FUNCTION @extschema@.keypool_record(uuid, bigint, text, bigint, bigint, bigint, text) IS 'records a request and what it used, and settles its reservation; false: it was settled before';
REVOKE ALL ON FUNCTION @extschema@.keypool_record(uuid, bigint, text, bigint, bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_record_many(
	keys uuid[], tokens bigint[] DEFAULT NULL, leases text[] DEFAULT NULL, output_tokens bigint[] DEFAULT NULL,
	cached_tokens bigint[] DEFAULT NULL, cost bigint[] DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_record_many';
COMMENT ON FUNCTION @extschema@.keypool_record_many(uuid[], bigint[], text[], bigint[], bigint[], bigint[]) IS 'records many requests, skips with a warning what fails, and returns how many counted';
REVOKE ALL ON FUNCTION @extschema@.keypool_record_many(uuid[], bigint[], text[], bigint[], bigint[], bigint[]) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_release(key uuid, lease text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_release';
COMMENT ON FUNCTION @extschema@.keypool_release(uuid, text) IS 'gives a reservation back: the request was never sent; false: it was settled before';
REVOKE ALL ON FUNCTION @extschema@.keypool_release(uuid, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_mark_429(
	key uuid, retry_after_seconds double precision DEFAULT NULL, lease text DEFAULT NULL, scope text DEFAULT NULL,
	model text DEFAULT NULL) RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_mark_429';
COMMENT ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, text, text, text) IS 'the provider answered 429: blocks what was limited, and returns until when';
REVOKE ALL ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, text, text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_report(
	key uuid, lease text, http_status bigint, headers text DEFAULT NULL, error_code text DEFAULT NULL,
	body text DEFAULT NULL, tokens bigint DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL, cost bigint DEFAULT NULL, headers_age_ms bigint DEFAULT NULL,
	OUT class text, OUT action text, OUT retry_after_ms integer, OUT settled boolean)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_report';
COMMENT ON FUNCTION @extschema@.keypool_report(uuid, text, bigint, text, text, text, bigint, bigint, bigint, bigint, bigint) IS 'settles a call by what the provider answered: blocks what was limited, rests what fails, and says what to do next';
REVOKE ALL ON FUNCTION @extschema@.keypool_report(uuid, text, bigint, text, text, text, bigint, bigint, bigint, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_explain_answer(
	provider text, http_status bigint, headers text DEFAULT NULL, error_code text DEFAULT NULL,
	body text DEFAULT NULL, OUT class text, OUT action text, OUT rule text, OUT effect text, OUT retry_after_ms integer)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_explain_answer';
COMMENT ON FUNCTION @extschema@.keypool_explain_answer(text, bigint, text, text, text) IS 'what keypool_report would make of an answer, and why; changes nothing';
REVOKE ALL ON FUNCTION @extschema@.keypool_explain_answer(text, bigint, text, text, text) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.keypool_clear_cooldown(uuid) IS 'ends the cooldowns of a key';

-- `quota` has no default: with one, a key's id of no known type would be taken for the name of a provider.
CREATE FUNCTION @extschema@.keypool_clear_cooldown(provider text, quota text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_clear_cooldown_of_quotas';
COMMENT ON FUNCTION @extschema@.keypool_clear_cooldown(text, text) IS 'ends the cooldown of a quota of a provider; NULL: of all its quotas';
REVOKE ALL ON FUNCTION @extschema@.keypool_clear_cooldown(text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_add_key(
	provider text, key_label text, key_value text, priority integer DEFAULT 0,
	max_rpm bigint DEFAULT NULL, max_tpm bigint DEFAULT NULL, settings jsonb DEFAULT NULL) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_add_key';
COMMENT ON FUNCTION @extschema@.keypool_add_key(text, text, text, integer, bigint, bigint, jsonb) IS 'adds a key to a provider, and returns its id';
REVOKE ALL ON FUNCTION @extschema@.keypool_add_key(text, text, text, integer, bigint, bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_update_key(key uuid, changes jsonb) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_update_key';
COMMENT ON FUNCTION @extschema@.keypool_update_key(uuid, jsonb) IS 'changes settings of a key; null: as by default';
REVOKE ALL ON FUNCTION @extschema@.keypool_update_key(uuid, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_set_secret(key uuid, key_value text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_set_secret';
COMMENT ON FUNCTION @extschema@.keypool_set_secret(uuid, text) IS 'gives a key another secret; its id and counters stay';
REVOKE ALL ON FUNCTION @extschema@.keypool_set_secret(uuid, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_key(provider text, key_label text) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_key';
COMMENT ON FUNCTION @extschema@.keypool_key(text, text) IS 'the id of the key of a provider that has this label';
REVOKE ALL ON FUNCTION @extschema@.keypool_key(text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_set_quota(provider text, name text, settings jsonb DEFAULT NULL) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_set_quota';
COMMENT ON FUNCTION @extschema@.keypool_set_quota(text, text, jsonb) IS 'makes a quota, or changes settings of it, and returns its id; null: as by default';
REVOKE ALL ON FUNCTION @extschema@.keypool_set_quota(text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_delete_quota(provider text, name text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_delete_quota';
COMMENT ON FUNCTION @extschema@.keypool_delete_quota(text, text) IS 'removes a quota and its counters';
REVOKE ALL ON FUNCTION @extschema@.keypool_delete_quota(text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_set_provider(provider text, settings jsonb) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_set_provider';
COMMENT ON FUNCTION @extschema@.keypool_set_provider(text, jsonb) IS 'changes the defaults of a provider; null: that of keypool';
REVOKE ALL ON FUNCTION @extschema@.keypool_set_provider(text, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_set_error_rule(
	provider text, http_status bigint, error_code text, class text, scope text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_set_error_rule';
COMMENT ON FUNCTION @extschema@.keypool_set_error_rule(text, bigint, text, text, text) IS 'says of what class an answer is; class NULL: takes the rule back';
REVOKE ALL ON FUNCTION @extschema@.keypool_set_error_rule(text, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_apply(document jsonb, prune boolean DEFAULT false)
	RETURNS TABLE (object text, provider_id text, name text, change text, columns text[])
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_apply';
COMMENT ON FUNCTION @extschema@.keypool_apply(jsonb, boolean) IS 'makes keys, quotas, providers and error rules what a document says, and tells what that has changed; prune: what it does not name goes';
REVOKE ALL ON FUNCTION @extschema@.keypool_apply(jsonb, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_export(provider text DEFAULT NULL) RETURNS jsonb
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_export';
COMMENT ON FUNCTION @extschema@.keypool_export(text) IS 'the configuration of a provider, or of all, as a document of keypool_apply(), without secrets';
REVOKE ALL ON FUNCTION @extschema@.keypool_export(text) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.keypool_delete_key(uuid) IS 'removes a key and its counters';
COMMENT ON FUNCTION @extschema@.keypool_heal() IS 'seals every secret under the primary master key; notes in provider_keys.unopened_since what does not open';

CREATE FUNCTION @extschema@.keypool_list_keys(provider text DEFAULT NULL)
	RETURNS TABLE (
		id uuid, provider_id text, key_label text, priority integer, max_rpm bigint, max_tpm bigint, is_active boolean,
		last_429_at timestamptz, cooldown_until timestamptz, total_requests bigint, total_tokens bigint,
		created_at timestamptz, updated_at timestamptz, last_used_at timestamptz, window_requests bigint,
		window_tokens bigint, open_reservations bigint, account text, models text[], except_models text[],
		weight integer, max_output_tpm bigint, max_rpd bigint, max_tpd bigint, max_requests_per_month bigint,
		max_tokens_per_month bigint, max_cost_per_day bigint, max_cost_per_month bigint, max_in_flight bigint,
		burst_seconds smallint, attributes jsonb, expires_at timestamptz, in_flight bigint, breaker text,
		breaker_until timestamptz, breaker_reason text, state text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_list_keys';
COMMENT ON FUNCTION @extschema@.keypool_list_keys(text) IS 'the keys of a provider, or all, with their counters now and without their secrets';
REVOKE ALL ON FUNCTION @extschema@.keypool_list_keys(text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_list_quotas(provider text DEFAULT NULL)
	RETURNS TABLE (
		id uuid, provider_id text, name text, account text, models text[], except_models text[], counts text,
		max_rpm bigint, max_tpm bigint, max_output_tpm bigint, max_rph bigint, max_tph bigint, max_rpd bigint,
		max_tpd bigint, max_requests_per_month bigint, max_tokens_per_month bigint, max_cost_per_day bigint,
		max_cost_per_month bigint, max_in_flight bigint, burst_seconds smallint, output_weight integer, time_zone text,
		day text, total_requests bigint, total_tokens bigint, window_requests bigint, window_tokens bigint,
		day_requests bigint, day_tokens bigint, month_requests bigint, month_tokens bigint, in_flight bigint,
		blocked_until timestamptz, retry_after_ms integer)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_list_quotas';
COMMENT ON FUNCTION @extschema@.keypool_list_quotas(text) IS 'the quotas of a provider, or of all, with their counters now';
REVOKE ALL ON FUNCTION @extschema@.keypool_list_quotas(text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_usage(key uuid, minutes integer DEFAULT 60, by text DEFAULT 'minute')
	RETURNS TABLE (
		key_id uuid, window_minute timestamptz, request_count bigint, token_count bigint, rate_limited_count bigint,
		peak_percent bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_usage';
COMMENT ON FUNCTION @extschema@.keypool_usage(uuid, integer, text) IS 'the minutes of the last hour, or the hours or days (UTC), in which a key or a quota was used, newest first';
REVOKE ALL ON FUNCTION @extschema@.keypool_usage(uuid, integer, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_provider_usage(provider text DEFAULT NULL, by text DEFAULT 'hour')
	RETURNS TABLE (
		provider_id text, begins_at timestamptz, request_count bigint, token_count bigint, rate_limited_count bigint,
		peak_percent bigint, refused_limited bigint, refused_cooling bigint, refused_busy bigint, refused_too_large bigint,
		refused_no_key bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_provider_usage';
COMMENT ON FUNCTION @extschema@.keypool_provider_usage(text, text) IS 'the minutes, hours or days (UTC) in which the keys of a provider, or of each, were used, newest first';
REVOKE ALL ON FUNCTION @extschema@.keypool_provider_usage(text, text) FROM PUBLIC;

CREATE VIEW keypool.keys AS SELECT * FROM @extschema@.keypool_list_keys();
COMMENT ON VIEW keypool.keys IS 'every key with its counters now, without its secret';
REVOKE ALL ON TABLE keypool.keys FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_status(provider text DEFAULT NULL)
	RETURNS TABLE (
		provider_id text, keys_free bigint, keys_full bigint, keys_busy bigint, keys_cooling bigint, keys_off bigint,
		tightest_percent bigint, tightest_limit text, tightest_of text, retry_after_ms bigint, short_since timestamptz,
		short_seconds bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_status';
COMMENT ON FUNCTION @extschema@.keypool_status(text) IS 'how a provider, or each of them, stands now';
REVOKE ALL ON FUNCTION @extschema@.keypool_status(text) FROM PUBLIC;

CREATE VIEW keypool.status AS
	SELECT
		CASE WHEN pg_catalog.length(provider_id) OPERATOR(pg_catalog.<=) 12 THEN provider_id
			ELSE pg_catalog.format('%s~', pg_catalog.left(provider_id, 11)) END AS provider,
		keys_free AS free, keys_full AS full, keys_busy AS busy, keys_cooling AS cool, keys_off AS off,
		pg_catalog.left(CASE WHEN tightest_limit IS NOT NULL THEN
			pg_catalog.format('%s%% %s %s', tightest_percent, pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
				pg_catalog.substr(tightest_limit, 5), 'requests_per_', 'r/'), 'tokens_per_', 't/'), 'cost_per_', 'cost/'),
				tightest_of) END, 14) AS tightest,
		(retry_after_ms OPERATOR(pg_catalog.+) 999) OPERATOR(pg_catalog./) 1000 AS next,
		CASE WHEN short_seconds OPERATOR(pg_catalog.<) 100 THEN pg_catalog.format('%ss', short_seconds)
			WHEN short_seconds OPERATOR(pg_catalog.<) 6000 THEN pg_catalog.format('%sm', short_seconds OPERATOR(pg_catalog./) 60)
			WHEN short_seconds OPERATOR(pg_catalog.<) 360000 THEN pg_catalog.format('%sh', short_seconds OPERATOR(pg_catalog./) 3600)
			WHEN short_seconds IS NOT NULL THEN pg_catalog.format('%sd', short_seconds OPERATOR(pg_catalog./) 86400) END AS short
	FROM @extschema@.keypool_status();
COMMENT ON VIEW keypool.status IS 'every provider at a look: its keys by what they would say now, what is used most, seconds until one is free, and for how long it has been refusing';
REVOKE ALL ON TABLE keypool.status FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_metrics(provider text DEFAULT NULL, by_key boolean DEFAULT false)
	RETURNS TABLE (name text, labels jsonb, value double precision)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_metrics';
COMMENT ON FUNCTION @extschema@.keypool_metrics(text, boolean) IS 'counters and gauges of a provider, or of all, and of their quotas; of each key, too, if asked';
REVOKE ALL ON FUNCTION @extschema@.keypool_metrics(text, boolean) FROM PUBLIC;

CREATE VIEW keypool.metrics AS SELECT * FROM @extschema@.keypool_metrics();
COMMENT ON VIEW keypool.metrics IS 'counters and gauges of every provider and quota, for a collector';
REVOKE ALL ON TABLE keypool.metrics FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_open_calls(provider text DEFAULT NULL)
	RETURNS TABLE (
		provider_id text, key_id uuid, key_label text, selected_from timestamptz, selected_until timestamptz,
		age_seconds bigint, calls bigint, tokens bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_open_calls';
COMMENT ON FUNCTION @extschema@.keypool_open_calls(text) IS 'calls that were selected and are not settled yet, by key and second';
REVOKE ALL ON FUNCTION @extschema@.keypool_open_calls(text) FROM PUBLIC;

CREATE VIEW keypool.open_calls AS SELECT * FROM @extschema@.keypool_open_calls();
COMMENT ON VIEW keypool.open_calls IS 'calls that were selected and are not settled yet, by key and second';
REVOKE ALL ON TABLE keypool.open_calls FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_drop_open_calls(provider text, key uuid DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_drop_open_calls';
COMMENT ON FUNCTION @extschema@.keypool_drop_open_calls(text, uuid) IS 'gives back the places of calls whose callers died: of a provider, or of one of its keys';
REVOKE ALL ON FUNCTION @extschema@.keypool_drop_open_calls(text, uuid) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_events(provider text DEFAULT NULL, after bigint DEFAULT NULL)
	RETURNS TABLE (
		id bigint, at timestamptz, event text, provider_id text, subject uuid, subject_name text, role text,
		session_role text, details jsonb)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_events';
COMMENT ON FUNCTION @extschema@.keypool_events(text, bigint) IS 'who changed what, and what went wrong, of a provider or of all, newest first; `after`: only those with higher ids';
REVOKE ALL ON FUNCTION @extschema@.keypool_events(text, bigint) FROM PUBLIC;

CREATE VIEW keypool.events AS SELECT * FROM @extschema@.keypool_events();
COMMENT ON VIEW keypool.events IS 'who changed what, and what went wrong, newest first';
REVOKE ALL ON TABLE keypool.events FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_list_rights()
	RETURNS TABLE (role regrole, rights text, provider_id text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_list_rights';
COMMENT ON FUNCTION @extschema@.keypool_list_rights() IS 'which role was granted what, on which provider or on all';
REVOKE ALL ON FUNCTION @extschema@.keypool_list_rights() FROM PUBLIC;

CREATE VIEW keypool.key_usage_window AS
	SELECT u.key_id, u.window_minute, u.request_count, u.token_count
	FROM @extschema@.keypool_list_keys() k, @extschema@.keypool_usage(k.id) u;
COMMENT ON VIEW keypool.key_usage_window IS 'what every key used, minute by minute, over the last hour';
REVOKE ALL ON TABLE keypool.key_usage_window FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_doctor()
	RETURNS TABLE ("check" text, ok boolean, severity text, number bigint, result text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_doctor';
COMMENT ON FUNCTION @extschema@.keypool_doctor() IS 'what is not as it should be, and what to do about it';
REVOKE ALL ON FUNCTION @extschema@.keypool_doctor() FROM PUBLIC;

CREATE VIEW keypool.doctor AS
	SELECT "check", pg_catalog.rtrim(pg_catalog.regexp_replace(result, '(.{1,57})( |$)', E'\\1\n', 'g'), E'\n') AS result
	FROM @extschema@.keypool_doctor();
COMMENT ON VIEW keypool.doctor IS 'what is not as it should be, and what to do about it, to be read at 80 columns';
REVOKE ALL ON TABLE keypool.doctor FROM PUBLIC;

--
-- No role has rights on keypool's objects but by keypool_grant(): what default privileges gave on what is new, and what was
-- given by hand, is taken back; what keypool_grant() gave on what was made again is given back.
--

DO $$
DECLARE
	given record;
BEGIN
	FOR given IN
		SELECT pg_catalog.format('%s %s', objects.kind, objects.name) AS object, acl.grantee::pg_catalog.regrole AS grantee
		FROM pg_catalog.pg_extension e
		JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
		CROSS JOIN LATERAL (
			SELECT 'ROUTINE' AS kind, p.oid::pg_catalog.regprocedure::text AS name, p.proacl AS acl, p.proowner AS owner
			FROM pg_catalog.pg_proc p
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid OPERATOR(pg_catalog.=) d.objid
			UNION ALL
			SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
			FROM pg_catalog.pg_class c
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid OPERATOR(pg_catalog.=) d.objid
				AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v', 'S']::"char"[])
			UNION ALL
			SELECT 'SCHEMA', pg_catalog.quote_ident(n.nspname), n.nspacl, n.nspowner
			FROM pg_catalog.pg_namespace n
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid OPERATOR(pg_catalog.=) d.objid
		) objects
		CROSS JOIN LATERAL pg_catalog.aclexplode(objects.acl) acl
		WHERE e.extname OPERATOR(pg_catalog.=) 'keypool' AND acl.grantee OPERATOR(pg_catalog.<>) objects.owner
			AND acl.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', given.object, given.grantee);
	END LOOP;
END $$;
SELECT @extschema@.keypool_grant(role, rights, provider_id) FROM keypool.grants
	WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM pg_catalog.pg_roles);
