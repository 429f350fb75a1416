package run

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Standby makes a streaming standby under the name given, in a folder of its
// own, and starts it; a standby that is there already is started again as it
// is. The primary does not wait for it until [Postgres.SyncNames] says so.
func (p *Postgres) Standby(ctx context.Context, name string, cfg PostgresConfig) (*Postgres, error) {
	cfg.Password = p.cfg.Password
	s, err := newPostgres(cfg)
	if err != nil {
		return nil, err
	}
	s.name = "PostgreSQL's standby"
	if !isFile(filepath.Join(s.data(), "PG_VERSION")) {
		conn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name=%s", p.cfg.Port, PostgresUser, name)
		if err := s.tool("pg_basebackup", "-D", s.data(), "-R", "-X", "stream", "-c", "fast", "-C", "-S", name, "-d", conn); err != nil {
			return nil, err
		}
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, p.waitFor(startLimit, func() error {
		state, err := p.Query(ctx, "postgres", "SELECT coalesce(max(state), 'absent') FROM pg_stat_replication WHERE application_name = "+quote(name))
		if err == nil && state != "streaming" {
			err = fmt.Errorf("the standby %s is %s", name, state)
		}
		return err
	})
}

// SyncNames sets synchronous_standby_names, such as FIRST 1 (name), and
// returns when it is in force; "" makes commits wait for no standby.
func (p *Postgres) SyncNames(ctx context.Context, names string) error {
	// Loading the configuration for nothing would make the journal claim less for
	// some seconds: it cannot know what has changed.
	now, err := p.Query(ctx, "postgres", "SHOW synchronous_standby_names")
	if err != nil || now == names {
		return err
	}
	if err := p.Exec(ctx, "postgres", "ALTER SYSTEM SET synchronous_standby_names = "+quote(names), "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return p.waitFor(startLimit, func() error {
		got, err := p.Query(ctx, "postgres", "SHOW synchronous_standby_names")
		if err == nil && got != names {
			err = fmt.Errorf("synchronous_standby_names is still %q", got)
		}
		if err != nil || names == "" {
			return err
		}
		sync, err := p.Query(ctx, "postgres", "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")
		if err == nil && sync == "0" {
			err = fmt.Errorf("no standby is synchronous by %s", names)
		}
		return err
	})
}

// Promote makes a standby a primary, on a new timeline, and returns when it
// takes writes.
func (p *Postgres) Promote(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := p.Exec(ctx, "postgres", "SELECT pg_promote(true, 60)"); err != nil {
		return err
	}
	for {
		standby, err := p.Query(ctx, "postgres", "SELECT pg_is_in_recovery()::text")
		if err != nil {
			return err
		}
		if standby == "false" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// quote writes a string constant of SQL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
