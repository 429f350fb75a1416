-- +goose Up
-- Instants are milliseconds since 1970 in UTC.
CREATE TABLE staff_credential (
    id          TEXT    NOT NULL PRIMARY KEY,
    staff_id    TEXT    NOT NULL,
    secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL CHECK (expires_at > created_at),
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX staff_credential_by_staff ON staff_credential (staff_id, id);

-- +goose Down
DROP TABLE staff_credential;
