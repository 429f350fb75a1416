package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"

	"modernc.org/sqlite"

	"github.com/tidegate/tidegate/internal/store"
)

// OpenReadOnly opens existing tables for reading, also beside a server that
// writes them. It makes and changes nothing: without a file the error is
// [os.ErrNotExist], and Apply of what it returns fails.
func OpenReadOnly(ctx context.Context, path string) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the tables: %w", err)
	}
	s := &Store{path: path}
	err := s.checkReadOnly()
	if err == nil {
		s.reads, err = sql.Open("sqlite", dsn(path, "query_only(1)", "cache_size(-8192)"))
	}
	if err == nil {
		s.reads.SetMaxOpenConns(readers)
		s.reads.SetMaxIdleConns(readers)
		err = s.reads.PingContext(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the tables in %s: %w", path, err), s.Close())
	}
	return s, nil
}

// checkReadOnly says whether the file holds tables of this layout.
func (s *Store) checkReadOnly() (err error) {
	conn, err := (&sqlite.Driver{}).Open(dsn(s.path, "query_only(1)"))
	if err != nil {
		return err
	}
	w := &writer{conn: conn, stmts: map[string]*stmt{}}
	defer func() { err = errors.Join(err, w.close()) }()
	values := map[string]int64{}
	for _, name := range []string{"user_version", "application_id"} {
		if err := w.one("PRAGMA "+name, nil, func(c []driver.Value) error { values[name] = colInt(c[0]); return nil }); err != nil {
			return err
		}
	}
	if values["application_id"] != applicationID || values["user_version"] != layout {
		return store.ErrLayout
	}
	return nil
}
