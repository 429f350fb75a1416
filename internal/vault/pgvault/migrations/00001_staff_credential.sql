-- +goose Up
-- Ids are ordered by their bytes, whatever the database's collation is.
CREATE TABLE tidegate_vault.staff_credential (
    id          text COLLATE "C" NOT NULL PRIMARY KEY,
    staff_id    text COLLATE "C" NOT NULL,
    secret_hash bytea            NOT NULL CHECK (octet_length(secret_hash) = 32),
    created_at  timestamptz(3)   NOT NULL,
    expires_at  timestamptz(3)   NOT NULL CHECK (expires_at > created_at),
    revoked_at  timestamptz(3)
);

CREATE INDEX staff_credential_by_staff ON tidegate_vault.staff_credential (staff_id, id);
