package postgres

import (
	"context"
	"fmt"
	"time"
)

// waitsSQL looks at the sessions of this one's name, and says whether any commit
// waits for a standby: one of theirs, or of somebody who holds what they need.
const waitsSQL = `
SELECT coalesce(bool_or(ours AND wait_event = 'SyncRep'), false), coalesce(bool_or(ours AND wait_event_type = 'Lock'), false),
	coalesce(bool_or(wait_event = 'SyncRep'), false), current_setting('synchronous_standby_names')
FROM (SELECT application_name = current_setting('application_name') AS ours, wait_event, wait_event_type
	FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()) AS session`

// waitsLimit bounds the looking.
const waitsLimit = 2 * time.Second

// Waits says in a sentence what sessions of the options' name wait for in the
// database, when it is something that an operator should know; "" otherwise. It
// sees the sessions of its own user.
func Waits(ctx context.Context, o Options) (string, error) {
	o.MaxConns, o.StatementTimeout, o.Timeline = 1, waitsLimit, nil
	ctx, cancel := context.WithTimeout(ctx, waitsLimit)
	defer cancel()
	pool, err := Open(ctx, o)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	var standby, lock, anybody bool
	var names string
	if err := pool.QueryRow(ctx, waitsSQL).Scan(&standby, &lock, &anybody, &names); err != nil {
		return "", fmt.Errorf("ask what the database waits for: %w", err)
	}
	switch {
	case standby:
		return fmt.Sprintf("the database commits, but waits for its synchronous standby (synchronous_standby_names = %q): see that it runs and is connected", names), nil
	case lock && anybody:
		return fmt.Sprintf("somebody else's commit is before this one, and waits for the database's synchronous standby (synchronous_standby_names = %q): see that it runs and is connected", names), nil
	case lock:
		return "another session of the database holds what this one needs, such as another migration: see pg_stat_activity and pg_locks if it does not end", nil
	}
	return "", nil
}
