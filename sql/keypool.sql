-- keypool.sql - what CREATE EXTENSION keypool makes.
\echo Use "CREATE EXTENSION keypool" to load this file. \quit

CREATE SCHEMA keypool;
COMMENT ON SCHEMA keypool IS 'the tables, views and types of the extension keypool; its functions are keypool_*';

--
-- The state of a key
--

CREATE TYPE keypool.state;

CREATE FUNCTION keypool.state_in(cstring) RETURNS keypool.state
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_in';
COMMENT ON FUNCTION keypool.state_in(cstring) IS 'reads a state from a dump';
REVOKE ALL ON FUNCTION keypool.state_in(cstring) FROM PUBLIC;

CREATE FUNCTION keypool.state_out(keypool.state) RETURNS cstring
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_out';
COMMENT ON FUNCTION keypool.state_out(keypool.state) IS 'writes a state for a dump';
REVOKE ALL ON FUNCTION keypool.state_out(keypool.state) FROM PUBLIC;

CREATE FUNCTION keypool.state_recv(internal) RETURNS keypool.state
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_recv';
COMMENT ON FUNCTION keypool.state_recv(internal) IS 'reads a state from a binary copy';
REVOKE ALL ON FUNCTION keypool.state_recv(internal) FROM PUBLIC;

CREATE FUNCTION keypool.state_send(keypool.state) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_send';
COMMENT ON FUNCTION keypool.state_send(keypool.state) IS 'writes a state for a binary copy';
REVOKE ALL ON FUNCTION keypool.state_send(keypool.state) FROM PUBLIC;

CREATE TYPE keypool.state (
	INPUT = keypool.state_in,
	OUTPUT = keypool.state_out,
	RECEIVE = keypool.state_recv,
	SEND = keypool.state_send,
	INTERNALLENGTH = 3896,
	ALIGNMENT = double,
	STORAGE = plain
);
COMMENT ON TYPE keypool.state IS 'the counters of one key: what is recorded, and what is reserved';

--
-- Tables
--

CREATE TABLE keypool.provider_keys (
	id uuid CONSTRAINT provider_keys_pkey PRIMARY KEY,
	provider_id text COLLATE pg_catalog."C" NOT NULL
		CONSTRAINT provider_id_length CHECK (pg_catalog.octet_length(provider_id) OPERATOR(pg_catalog.<=) 255),
	key_label text,
	key_value text NOT NULL,
	priority integer NOT NULL DEFAULT 0,
	max_rpm bigint CONSTRAINT max_rpm_not_negative CHECK (max_rpm OPERATOR(pg_catalog.>=) 0),
	max_tpm bigint CONSTRAINT max_tpm_not_negative CHECK (max_tpm OPERATOR(pg_catalog.>=) 0),
	is_active boolean NOT NULL DEFAULT true,
	inactive_until timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	fingerprint bytea,
	unopened_since timestamptz
) USING heap;
CREATE INDEX provider_keys_order ON keypool.provider_keys (provider_id, priority, id);
CREATE INDEX provider_keys_fingerprint ON keypool.provider_keys (provider_id, fingerprint);
REVOKE ALL ON TABLE keypool.provider_keys FROM PUBLIC;

COMMENT ON TABLE keypool.provider_keys IS 'the configuration of the keys; ordinary, transactional data';
COMMENT ON COLUMN keypool.provider_keys.id IS 'made if it is not given; never changes';
COMMENT ON COLUMN keypool.provider_keys.provider_id IS 'the pool that the key belongs to; never changes';
COMMENT ON COLUMN keypool.provider_keys.key_label IS 'a name for people';
COMMENT ON COLUMN keypool.provider_keys.key_value IS 'the secret, sealed before it is stored';
COMMENT ON COLUMN keypool.provider_keys.priority IS 'lower is tried first';
COMMENT ON COLUMN keypool.provider_keys.max_rpm IS 'requests in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.max_tpm IS 'tokens in any 60 seconds; NULL or 0: no limit';
COMMENT ON COLUMN keypool.provider_keys.is_active IS 'whether the key may be selected';
COMMENT ON COLUMN keypool.provider_keys.inactive_until IS 'an inactive key may come back from here on; NULL: it stays off';
COMMENT ON COLUMN keypool.provider_keys.created_at IS 'when it was added';
COMMENT ON COLUMN keypool.provider_keys.updated_at IS 'when its configuration was last changed';
COMMENT ON COLUMN keypool.provider_keys.fingerprint IS 'tells the same secret again; NULL: keypool_heal() makes it';
COMMENT ON COLUMN keypool.provider_keys.unopened_since IS 'since when keypool_heal() finds that the secret does not open although its master key is there; NULL: it opens, or was not tried';

CREATE TABLE keypool.key_state (
	key_id uuid CONSTRAINT key_state_pkey PRIMARY KEY,
	state keypool.state NOT NULL
) USING heap;
REVOKE ALL ON TABLE keypool.key_state FROM PUBLIC;

COMMENT ON TABLE keypool.key_state IS 'one row a key, changed in place by the functions; read it with keypool_list_keys() and keypool_usage()';
COMMENT ON COLUMN keypool.key_state.key_id IS 'provider_keys.id';
COMMENT ON COLUMN keypool.key_state.state IS 'the counters';

CREATE TABLE keypool.wakeups (
	slot integer NOT NULL,
	ring bytea NOT NULL
) USING heap;
ALTER TABLE keypool.wakeups ALTER COLUMN ring SET STORAGE PLAIN;
INSERT INTO keypool.wakeups
	SELECT slot, pg_catalog.decode(pg_catalog.repeat('00', 8008), 'hex') FROM pg_catalog.generate_series(0, 7) slot;
REVOKE ALL ON TABLE keypool.wakeups FROM PUBLIC;

COMMENT ON TABLE keypool.wakeups IS 'where sessions tell each other which full or cooling keys can serve again; changed in place, and never grows';
COMMENT ON COLUMN keypool.wakeups.slot IS 'which providers it is for, by a hash of their names';
COMMENT ON COLUMN keypool.wakeups.ring IS 'how many keys were told of, and the ids of the last 500';

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

CREATE TABLE keypool.grants (
	role regrole NOT NULL,
	rights text COLLATE pg_catalog."C" NOT NULL
		CONSTRAINT known_rights CHECK (rights OPERATOR(pg_catalog.=) ANY (ARRAY['app', 'monitor', 'operator'])),
	provider_id text COLLATE pg_catalog."C",
	CONSTRAINT grants_key UNIQUE NULLS NOT DISTINCT (role, rights, provider_id)
) USING heap;
ALTER TABLE keypool.grants REPLICA IDENTITY FULL;
REVOKE ALL ON TABLE keypool.grants FROM PUBLIC;

COMMENT ON TABLE keypool.grants IS 'which role may reach which provider; kept by keypool_grant() and keypool_revoke()';
COMMENT ON COLUMN keypool.grants.role IS 'the role';
COMMENT ON COLUMN keypool.grants.rights IS 'app, monitor or operator';
COMMENT ON COLUMN keypool.grants.provider_id IS 'the provider; NULL: all of them';

SELECT pg_catalog.pg_extension_config_dump('keypool.provider_keys', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.key_state', '');
SELECT pg_catalog.pg_extension_config_dump('keypool.master_keys', '');
-- A role that was dropped must not come back as another that has its number by then.
SELECT pg_catalog.pg_extension_config_dump('keypool.grants',
	'WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM pg_catalog.pg_roles)');

--
-- Triggers. ALWAYS: no setting of a session, and no replication, may skip them. What a change needs done is done for each row:
-- logical replication fires no triggers of statements, but for TRUNCATE.
--

CREATE FUNCTION keypool.before_key_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_key_change';
COMMENT ON FUNCTION keypool.before_key_change() IS 'makes the id, checks the provider, seals the secret, and tells every session that a change begins';
REVOKE ALL ON FUNCTION keypool.before_key_change() FROM PUBLIC;

CREATE FUNCTION keypool.after_key_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_after_key_change';
COMMENT ON FUNCTION keypool.after_key_change() IS 'makes or removes the state, and tells every session of the change';
REVOKE ALL ON FUNCTION keypool.after_key_change() FROM PUBLIC;

CREATE FUNCTION keypool.before_state_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_state_change';
COMMENT ON FUNCTION keypool.before_state_change() IS 'locks the keys before any state, lets a restored state replace the fresh one, and refuses UPDATE';
REVOKE ALL ON FUNCTION keypool.before_state_change() FROM PUBLIC;

CREATE FUNCTION keypool.after_grant_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_after_grant_change';
COMMENT ON FUNCTION keypool.after_grant_change() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.after_grant_change() FROM PUBLIC;

CREATE FUNCTION keypool.tell_sessions() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_tell_sessions';
COMMENT ON FUNCTION keypool.tell_sessions() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.tell_sessions() FROM PUBLIC;

CREATE FUNCTION keypool.before_grant_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_grant_change';
COMMENT ON FUNCTION keypool.before_grant_change() IS 'lets nobody but the owner grant';
REVOKE ALL ON FUNCTION keypool.before_grant_change() FROM PUBLIC;

CREATE FUNCTION keypool.before_master_key_insert() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_master_key_insert';
COMMENT ON FUNCTION keypool.before_master_key_insert() IS 'keeps what is known of an id when a restore or replication brings it again';
REVOKE ALL ON FUNCTION keypool.before_master_key_insert() FROM PUBLIC;

CREATE TRIGGER before_key_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.provider_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_key_change();
CREATE TRIGGER after_key_change AFTER INSERT OR UPDATE OR DELETE ON keypool.provider_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.after_key_change();
CREATE TRIGGER after_key_truncate AFTER TRUNCATE ON keypool.provider_keys
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_key_change();
CREATE TRIGGER before_state_insert BEFORE INSERT ON keypool.key_state
	FOR EACH ROW EXECUTE FUNCTION keypool.before_state_change();
CREATE TRIGGER before_state_statement BEFORE INSERT OR DELETE ON keypool.key_state
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.before_state_change();
CREATE TRIGGER before_state_update BEFORE UPDATE ON keypool.key_state
	FOR EACH ROW EXECUTE FUNCTION keypool.before_state_change();
CREATE TRIGGER after_state_statement AFTER INSERT OR DELETE ON keypool.key_state
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_sessions();
CREATE TRIGGER after_grant_change AFTER INSERT OR UPDATE OR DELETE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.after_grant_change();
CREATE TRIGGER after_grant_truncate AFTER TRUNCATE ON keypool.grants
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_grant_change();
CREATE TRIGGER before_grant_change BEFORE INSERT OR UPDATE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.before_grant_change();
CREATE TRIGGER before_master_key_insert BEFORE INSERT ON keypool.master_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_master_key_insert();
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_change;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_truncate;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER before_grant_change;
ALTER TABLE keypool.master_keys ENABLE ALWAYS TRIGGER before_master_key_insert;
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER after_key_change;
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER after_key_truncate;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER before_state_insert;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER before_state_statement;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER before_state_update;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER after_state_statement;
COMMENT ON TRIGGER before_master_key_insert ON keypool.master_keys IS 'keeps what is known of an id when a restore or replication brings it again';
COMMENT ON TRIGGER after_state_statement ON keypool.key_state IS 'tells every session of the change';
COMMENT ON TRIGGER before_key_change ON keypool.provider_keys IS 'makes the id, checks the provider, seals the secret, and tells every session that a change begins';
COMMENT ON TRIGGER after_key_change ON keypool.provider_keys IS 'makes or removes the state, and tells every session of the change';
COMMENT ON TRIGGER after_key_truncate ON keypool.provider_keys IS 'removes the states, and tells every session of the change';
COMMENT ON TRIGGER before_grant_change ON keypool.grants IS 'lets nobody but the owner grant';
COMMENT ON TRIGGER after_grant_change ON keypool.grants IS 'tells every session of the change';
COMMENT ON TRIGGER after_grant_truncate ON keypool.grants IS 'tells every session of the change';
COMMENT ON TRIGGER before_state_insert ON keypool.key_state IS 'lets a restored state replace the fresh one';
COMMENT ON TRIGGER before_state_statement ON keypool.key_state IS 'locks the keys before any state';
COMMENT ON TRIGGER before_state_update ON keypool.key_state IS 'refuses UPDATE: states are changed in place';

--
-- Selecting
--

CREATE FUNCTION @extschema@.keypool_select(
	provider text, tokens bigint DEFAULT 0,
	OUT key_id uuid, OUT key_value text, OUT lease bigint, OUT key_label text, OUT priority integer,
	OUT max_rpm bigint, OUT max_tpm bigint, OUT status text, OUT retry_after_ms bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_select';
COMMENT ON FUNCTION @extschema@.keypool_select(text, bigint) IS 'hands out the best key of a provider, decrypted and reserved; raises KP429, KP404, KP413 or KP401 if there is none';
REVOKE ALL ON FUNCTION @extschema@.keypool_select(text, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_try_select(
	provider text, tokens bigint DEFAULT 0,
	OUT key_id uuid, OUT key_value text, OUT lease bigint, OUT key_label text, OUT priority integer,
	OUT max_rpm bigint, OUT max_tpm bigint, OUT status text, OUT retry_after_ms bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_try_select';
COMMENT ON FUNCTION @extschema@.keypool_try_select(text, bigint) IS 'like keypool_select, but says in status and retry_after_ms why there is no key';
REVOKE ALL ON FUNCTION @extschema@.keypool_try_select(text, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_peek(
	provider text, tokens bigint DEFAULT 0,
	OUT key_id uuid, OUT key_value text, OUT lease bigint, OUT key_label text, OUT priority integer,
	OUT max_rpm bigint, OUT max_tpm bigint, OUT status text, OUT retry_after_ms bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_peek';
COMMENT ON FUNCTION @extschema@.keypool_peek(text, bigint) IS 'what keypool_select would answer now, without the secret; changes nothing, works on a standby';
REVOKE ALL ON FUNCTION @extschema@.keypool_peek(text, bigint) FROM PUBLIC;

--
-- Settling
--

CREATE FUNCTION @extschema@.keypool_record(key uuid, tokens bigint DEFAULT NULL, lease bigint DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_record';
COMMENT ON FUNCTION @extschema@.keypool_record(uuid, bigint, bigint) IS 'records a request and the tokens that it used, and settles its reservation';
REVOKE ALL ON FUNCTION @extschema@.keypool_record(uuid, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_release(key uuid, lease bigint) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_release';
COMMENT ON FUNCTION @extschema@.keypool_release(uuid, bigint) IS 'gives a reservation back: the request was never sent';
REVOKE ALL ON FUNCTION @extschema@.keypool_release(uuid, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_mark_429(
	key uuid, retry_after_seconds double precision DEFAULT NULL, lease bigint DEFAULT NULL) RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_mark_429_seconds';
COMMENT ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, bigint) IS 'the provider answered 429: cools the key, and returns until when';
REVOKE ALL ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_clear_cooldown(key uuid) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_clear_cooldown';
COMMENT ON FUNCTION @extschema@.keypool_clear_cooldown(uuid) IS 'ends the cooldown of a key';
REVOKE ALL ON FUNCTION @extschema@.keypool_clear_cooldown(uuid) FROM PUBLIC;

--
-- Configuring
--

CREATE FUNCTION @extschema@.keypool_add_key(
	provider text, key_label text, key_value text, priority integer DEFAULT 0,
	max_rpm bigint DEFAULT NULL, max_tpm bigint DEFAULT NULL) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_add_key';
COMMENT ON FUNCTION @extschema@.keypool_add_key(text, text, text, integer, bigint, bigint) IS 'adds a key to a provider, and returns its id';
REVOKE ALL ON FUNCTION @extschema@.keypool_add_key(text, text, text, integer, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_toggle_key(key uuid, active boolean, for_seconds integer DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_toggle_key';
COMMENT ON FUNCTION @extschema@.keypool_toggle_key(uuid, boolean, integer) IS 'switches a key on, off, or off for a time';
REVOKE ALL ON FUNCTION @extschema@.keypool_toggle_key(uuid, boolean, integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_delete_key(key uuid) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_delete_key';
COMMENT ON FUNCTION @extschema@.keypool_delete_key(uuid) IS 'removes a key and its state';
REVOKE ALL ON FUNCTION @extschema@.keypool_delete_key(uuid) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_heal(OUT healed bigint, OUT failed bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_heal';
COMMENT ON FUNCTION @extschema@.keypool_heal() IS 'seals every secret under the primary master key; notes in provider_keys.unopened_since what does not open';
REVOKE ALL ON FUNCTION @extschema@.keypool_heal() FROM PUBLIC;

CREATE PROCEDURE @extschema@.keypool_heal_in_batches(
	batch_size integer DEFAULT 100, INOUT healed bigint DEFAULT NULL, INOUT failed bigint DEFAULT NULL)
	LANGUAGE c AS 'MODULE_PATHNAME', 'keypool_heal_in_batches';
COMMENT ON PROCEDURE @extschema@.keypool_heal_in_batches(integer, bigint, bigint) IS 'like keypool_heal, but commits after each batch: it may be stopped and started again';
REVOKE ALL ON PROCEDURE @extschema@.keypool_heal_in_batches(integer, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_public_key() RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_public_key';
COMMENT ON FUNCTION @extschema@.keypool_public_key() IS 'the OpenPGP public key to encrypt secrets to, before they are added';
REVOKE ALL ON FUNCTION @extschema@.keypool_public_key() FROM PUBLIC;

--
-- Rights
--

CREATE FUNCTION @extschema@.keypool_grant(role regrole, rights text, provider text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_grant';
COMMENT ON FUNCTION @extschema@.keypool_grant(regrole, text, text) IS 'gives a role the rights of app, monitor or operator, on one provider or on all';
REVOKE ALL ON FUNCTION @extschema@.keypool_grant(regrole, text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_revoke(role regrole, rights text, provider text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_revoke';
COMMENT ON FUNCTION @extschema@.keypool_revoke(regrole, text, text) IS 'takes back what keypool_grant gave';
REVOKE ALL ON FUNCTION @extschema@.keypool_revoke(regrole, text, text) FROM PUBLIC;

--
-- Moving in
--

CREATE FUNCTION @extschema@.keypool_import(
	keys regclass, windows regclass DEFAULT NULL, time_zone text DEFAULT 'UTC', OUT keys bigint, OUT windows bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_import';
COMMENT ON FUNCTION @extschema@.keypool_import(regclass, regclass, text) IS 'takes over the tables provider_keys and key_usage_window of the service that keypool replaces';
REVOKE ALL ON FUNCTION @extschema@.keypool_import(regclass, regclass, text) FROM PUBLIC;

--
-- Looking
--

CREATE FUNCTION @extschema@.keypool_list_keys(provider text DEFAULT NULL)
	RETURNS TABLE (
		id uuid, provider_id text, key_label text, priority integer, max_rpm bigint, max_tpm bigint,
		is_active boolean, last_429_at timestamptz, cooldown_until timestamptz, total_requests bigint,
		total_tokens bigint, created_at timestamptz, updated_at timestamptz, last_used_at timestamptz,
		window_requests bigint, window_tokens bigint, open_reservations bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_list_keys';
COMMENT ON FUNCTION @extschema@.keypool_list_keys(text) IS 'the keys of a provider, or all, with their state now and without their secrets';
REVOKE ALL ON FUNCTION @extschema@.keypool_list_keys(text) FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_usage(key uuid, minutes integer DEFAULT 60)
	RETURNS TABLE (
		key_id uuid, window_minute timestamptz, request_count bigint, token_count bigint, rate_limited_count bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_usage';
COMMENT ON FUNCTION @extschema@.keypool_usage(uuid, integer) IS 'the minutes of the last hour in which a key was used, newest first';
REVOKE ALL ON FUNCTION @extschema@.keypool_usage(uuid, integer) FROM PUBLIC;

CREATE VIEW keypool.keys AS SELECT * FROM @extschema@.keypool_list_keys();
COMMENT ON VIEW keypool.keys IS 'every key with its state now, without its secret';
REVOKE ALL ON TABLE keypool.keys FROM PUBLIC;

CREATE VIEW keypool.key_usage_window AS
	SELECT u.key_id, u.window_minute, u.request_count, u.token_count
	FROM @extschema@.keypool_list_keys() k, @extschema@.keypool_usage(k.id) u;
COMMENT ON VIEW keypool.key_usage_window IS 'what every key used, minute by minute, over the last hour';
REVOKE ALL ON TABLE keypool.key_usage_window FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_keyring()
	RETURNS TABLE (
		master_key_id text, is_primary boolean, status text, fingerprint text, secrets bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_keyring';
COMMENT ON FUNCTION @extschema@.keypool_keyring() IS 'the master keys, loaded or missing, and how many secrets each seals';
REVOKE ALL ON FUNCTION @extschema@.keypool_keyring() FROM PUBLIC;

CREATE VIEW keypool.keyring AS SELECT * FROM @extschema@.keypool_keyring();
COMMENT ON VIEW keypool.keyring IS 'the master keys, loaded or missing, and how many secrets each seals';
REVOKE ALL ON TABLE keypool.keyring FROM PUBLIC;

CREATE FUNCTION @extschema@.keypool_doctor()
	RETURNS TABLE ("check" text, result text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_doctor';
COMMENT ON FUNCTION @extschema@.keypool_doctor() IS 'what is not as it should be, and what to do about it';
REVOKE ALL ON FUNCTION @extschema@.keypool_doctor() FROM PUBLIC;

--
-- Nobody has rights on any of this but by keypool_grant(): what default privileges gave is taken back.
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
			SELECT 'TABLE', c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
			FROM pg_catalog.pg_class c
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid OPERATOR(pg_catalog.=) d.objid
				AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::"char"[])
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
