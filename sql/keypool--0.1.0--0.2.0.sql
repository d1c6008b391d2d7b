-- keypool--0.1.0--0.2.0.sql - what ALTER EXTENSION keypool UPDATE changes from 0.1.0 to 0.2.0.
\echo Use "ALTER EXTENSION keypool UPDATE TO '0.2.0'" to load this file. \quit

ALTER TABLE keypool.provider_keys ADD CONSTRAINT provider_id_length
	CHECK (pg_catalog.octet_length(provider_id) OPERATOR(pg_catalog.<=) 255);
ALTER TABLE keypool.grants REPLICA IDENTITY FULL;
-- Nothing, unless default_table_access_method was another one when 0.1.0 was made.
ALTER TABLE keypool.provider_keys SET ACCESS METHOD heap;
ALTER TABLE keypool.key_state SET ACCESS METHOD heap;
ALTER TABLE keypool.grants SET ACCESS METHOD heap;

ALTER TABLE keypool.provider_keys ADD COLUMN fingerprint bytea;
CREATE INDEX provider_keys_fingerprint ON keypool.provider_keys (provider_id, fingerprint);
COMMENT ON COLUMN keypool.provider_keys.fingerprint IS 'tells the same secret again; NULL: keypool_heal() makes it';

CREATE FUNCTION keypool.state_recv(internal) RETURNS keypool.state
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_recv';
COMMENT ON FUNCTION keypool.state_recv(internal) IS 'reads a state from a binary copy';
REVOKE ALL ON FUNCTION keypool.state_recv(internal) FROM PUBLIC;
CREATE FUNCTION keypool.state_send(keypool.state) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'keypool_state_send';
COMMENT ON FUNCTION keypool.state_send(keypool.state) IS 'writes a state for a binary copy';
REVOKE ALL ON FUNCTION keypool.state_send(keypool.state) FROM PUBLIC;
ALTER TYPE keypool.state SET (RECEIVE = keypool.state_recv, SEND = keypool.state_send);

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

CREATE FUNCTION keypool.tell_sessions() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_tell_sessions';
COMMENT ON FUNCTION keypool.tell_sessions() IS 'tells every session of the change';
REVOKE ALL ON FUNCTION keypool.tell_sessions() FROM PUBLIC;

CREATE FUNCTION keypool.before_grant_change() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_grant_change';
COMMENT ON FUNCTION keypool.before_grant_change() IS 'lets nobody but the owner grant';
REVOKE ALL ON FUNCTION keypool.before_grant_change() FROM PUBLIC;

COMMENT ON FUNCTION keypool.before_key_change() IS 'makes the id, checks the provider, seals the secret, and tells every session that a change begins';
DROP TRIGGER after_grant_change ON keypool.grants;
DROP TRIGGER before_key_change ON keypool.provider_keys;
CREATE TRIGGER before_key_change BEFORE INSERT OR UPDATE OR DELETE ON keypool.provider_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_key_change();
DROP TRIGGER before_state_insert ON keypool.key_state;
CREATE TRIGGER before_state_insert BEFORE INSERT ON keypool.key_state
	FOR EACH ROW EXECUTE FUNCTION keypool.before_state_change();
CREATE TRIGGER before_state_statement BEFORE INSERT OR DELETE ON keypool.key_state
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.before_state_change();
CREATE TRIGGER after_state_statement AFTER INSERT OR DELETE ON keypool.key_state
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.tell_sessions();
CREATE TRIGGER before_grant_change BEFORE INSERT OR UPDATE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.before_grant_change();
CREATE TRIGGER after_grant_change AFTER INSERT OR UPDATE OR DELETE ON keypool.grants
	FOR EACH ROW EXECUTE FUNCTION keypool.after_grant_change();
CREATE TRIGGER after_grant_truncate AFTER TRUNCATE ON keypool.grants
	FOR EACH STATEMENT EXECUTE FUNCTION keypool.after_grant_change();
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER before_state_insert;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER before_state_statement;
ALTER TABLE keypool.key_state ENABLE ALWAYS TRIGGER after_state_statement;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER before_grant_change;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_change;
ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_truncate;
COMMENT ON TRIGGER before_key_change ON keypool.provider_keys IS 'makes the id, checks the provider, seals the secret, and tells every session that a change begins';
COMMENT ON FUNCTION keypool.before_state_change() IS 'locks the keys before any state, lets a restored state replace the fresh one, and refuses UPDATE';
COMMENT ON TRIGGER before_state_insert ON keypool.key_state IS 'lets a restored state replace the fresh one';
COMMENT ON TRIGGER before_state_statement ON keypool.key_state IS 'locks the keys before any state';
COMMENT ON TRIGGER after_state_statement ON keypool.key_state IS 'tells every session of the change';
COMMENT ON TRIGGER before_grant_change ON keypool.grants IS 'lets nobody but the owner grant';
COMMENT ON TRIGGER after_grant_change ON keypool.grants IS 'tells every session of the change';
COMMENT ON TRIGGER after_grant_truncate ON keypool.grants IS 'tells every session of the change';

DROP FUNCTION @extschema@.keypool_mark_429(uuid, integer, bigint);
CREATE FUNCTION @extschema@.keypool_mark_429(
	key uuid, retry_after_seconds double precision DEFAULT NULL, lease bigint DEFAULT NULL) RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_mark_429_seconds';
COMMENT ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, bigint) IS 'the provider answered 429: cools the key, and returns until when';
REVOKE ALL ON FUNCTION @extschema@.keypool_mark_429(uuid, double precision, bigint) FROM PUBLIC;
-- Gives back what keypool_grant() gave on the function that is dropped.
SELECT @extschema@.keypool_grant(role, rights, provider_id) FROM keypool.grants
	WHERE role::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM pg_catalog.pg_roles);

ALTER TABLE keypool.provider_keys ADD COLUMN unopened_since timestamptz;
COMMENT ON COLUMN keypool.provider_keys.unopened_since IS 'since when keypool_heal() finds that the secret does not open although its master key is there; NULL: it opens, or was not tried';
COMMENT ON FUNCTION @extschema@.keypool_heal() IS 'seals every secret under the primary master key; notes in provider_keys.unopened_since what does not open';

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

SELECT pg_catalog.pg_extension_config_dump('keypool.master_keys', '');

CREATE FUNCTION keypool.before_master_key_insert() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'keypool_before_master_key_insert';
COMMENT ON FUNCTION keypool.before_master_key_insert() IS 'keeps what is known of an id when a restore or replication brings it again';
REVOKE ALL ON FUNCTION keypool.before_master_key_insert() FROM PUBLIC;

CREATE TRIGGER before_master_key_insert BEFORE INSERT ON keypool.master_keys
	FOR EACH ROW EXECUTE FUNCTION keypool.before_master_key_insert();
ALTER TABLE keypool.master_keys ENABLE ALWAYS TRIGGER before_master_key_insert;
COMMENT ON TRIGGER before_master_key_insert ON keypool.master_keys IS 'keeps what is known of an id when a restore or replication brings it again';
