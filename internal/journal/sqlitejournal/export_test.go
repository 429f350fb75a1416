package sqlitejournal

import (
	"context"
	"database/sql/driver"
)

// CheckVersion is checkVersion.
func CheckVersion(v string) error { return checkVersion(v) }

// OpenWrapped opens a journal over a driver that wrap may spoil.
func OpenWrapped(ctx context.Context, path string, opts Options, wrap func(driver.Conn) driver.Conn) (*Journal, error) {
	opts.wrap = wrap
	return Open(ctx, path, opts)
}

// OpenVFS opens a journal over a file layer registered under this name.
func OpenVFS(ctx context.Context, path string, opts Options, vfs string) (*Journal, error) {
	opts.vfs = vfs
	return Open(ctx, path, opts)
}
