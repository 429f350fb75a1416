package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// TimelineSQL is an expression: the timeline of a primary. It is 1 after initdb
// and one more at each promotion. A server that was a primary before another was
// promoted stays on a lower one for ever.
const TimelineSQL = `('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint`

// TimelineError says that a server is not the newest primary.
type TimelineError struct {
	Server, Seen int64
	Where        string // who has seen the higher one
}

// Error is a sentence that says what to do.
func (e *TimelineError) Error() string {
	return fmt.Sprintf("this database server is on timeline %d, and %s has seen timeline %d: it is a primary from before a standby was promoted, and what it takes would be lost. "+
		"Stop it and connect to the promoted server. (A server that was upgraded or restored on purpose begins again with a lower timeline: see docs/operations.md)", e.Server, e.Where, e.Seen)
}

// Timeline is the highest timeline seen of a server and of those that were
// promoted in its place. Pools that share one in their [Options] keep away from a
// primary that any of them knows to be an old one: a new connection goes on to
// the URL's next host, and one in the pool is given up. The zero value has seen
// nothing. Safe for concurrent use.
//
// Servers that are not copies of one another must not share one.
type Timeline struct {
	seen     atomic.Int64
	surveyed atomic.Bool
}

// Highest is the highest timeline seen; 0 for none.
func (t *Timeline) Highest() int64 { return t.seen.Load() }

// Meet takes note of a primary's timeline. An older one is a [*TimelineError].
func (t *Timeline) Meet(server int64) error {
	for {
		seen := t.seen.Load()
		if server < seen {
			return &TimelineError{Server: server, Seen: seen, Where: "this process, or one before it,"}
		}
		if server == seen || t.seen.CompareAndSwap(seen, server) {
			return nil
		}
	}
}

// timelineKey is where a connection remembers its server's timeline.
const timelineKey = "tidegate timeline"

// ServerTimeline is the timeline of the primary that a connection leads to; 0
// for a standby. A primary is asked once: a connection never moves to an older
// timeline. A standby is asked each time, it may be promoted.
func ServerTimeline(ctx context.Context, c *pgconn.PgConn) (int64, error) {
	if n, known := c.CustomData()[timelineKey].(int64); known {
		return n, nil
	}
	results, err := c.Exec(ctx, "SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE (SELECT "+TimelineSQL+") END").ReadAll()
	if err != nil {
		return 0, fmt.Errorf("ask for the server's timeline: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return 0, errors.New("ask for the server's timeline: the server answered without a row")
	}
	n, err := strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ask for the server's timeline: %w", err)
	}
	if n > 0 {
		c.CustomData()[timelineKey] = n
	}
	return n, nil
}

// guard has every connection of a pool checked against the timeline: when it is
// made, behind what target_session_attrs wants of it, and when it is lent.
// password sets the password of a connection that is made.
func (t *Timeline) guard(cfg *pgxpool.Config, password func(*pgx.ConnConfig) error) {
	wanted := cfg.ConnConfig.ValidateConnect
	others := cfg.ConnConfig.Copy()
	cfg.ConnConfig.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		// That it is not the preferred host is for pgx to judge, which takes it all
		// the same where there is no other; an old primary is never taken.
		var preferred error
		if wanted != nil {
			err := wanted(ctx, c)
			var less *pgconn.NotPreferredError
			if err != nil && !errors.As(err, &less) {
				return err
			}
			preferred = err
		}
		n, err := ServerTimeline(ctx, c)
		if err != nil {
			return err
		}
		if n > 0 {
			t.survey(ctx, others, password)
			if err := t.Meet(n); err != nil {
				return err
			}
		}
		return preferred
	}
	cfg.PrepareConn = func(_ context.Context, c *pgx.Conn) (bool, error) {
		n, known := c.PgConn().CustomData()[timelineKey].(int64)
		return !known || n >= t.Highest(), nil
	}
}

// surveyPatience is how long the hosts of a URL have to say their timelines.
const surveyPatience = time.Second

// survey asks every host of a URL of several for its timeline, once, before the
// first connection is used: a process that has seen nothing yet would take the
// first primary for the newest. A host that does not answer soon is passed over.
func (t *Timeline) survey(ctx context.Context, cfg *pgx.ConnConfig, password func(*pgx.ConnConfig) error) {
	hosts := eachHost(cfg)
	if len(hosts) == 1 || t.surveyed.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(surveyPatience, cfg.ConnectTimeout/2))
	defer cancel()
	var asking sync.WaitGroup
	for _, host := range hosts {
		asking.Go(func() {
			if password(host) != nil {
				return
			}
			c, err := pgconn.ConnectConfig(ctx, &host.Config)
			if err != nil {
				return
			}
			defer func() { _ = c.Close(ctx) }()
			if n, err := ServerTimeline(ctx, c); err == nil && n > 0 {
				_ = t.Meet(n) // an older one is refused when it is connected to
			}
		})
	}
	asking.Wait()
	t.surveyed.Store(true)
}

// eachHost splits a configuration by its hosts; whatever server is there will do.
func eachHost(cfg *pgx.ConnConfig) []*pgx.ConnConfig {
	type address struct {
		host string
		port uint16
	}
	var list []*pgx.ConnConfig
	known := map[address]*pgx.ConnConfig{}
	for _, f := range append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...) {
		a := address{f.Host, f.Port}
		if one := known[a]; one != nil { // the same host with other TLS, as sslmode=prefer has it
			one.Fallbacks = append(one.Fallbacks, f)
			continue
		}
		one := cfg.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks, one.ValidateConnect = f.Host, f.Port, f.TLSConfig, nil, nil
		known[a] = one
		list = append(list, one)
	}
	return list
}
