package app

import (
	"context"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
)

// When a command that waits for a database says so.
const (
	waitUntold   = 3 * time.Second
	waitReminder = time.Minute
)

// tellWaits says beside a command's result what it waits for in its databases,
// when that takes longer than a few seconds. What it returns ends that.
func (c *console) tellWaits(ctx context.Context, pg *PostgresConfig, name string, urls ...string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	told := map[string]time.Time{}
	telling.Go(func() {
		for rest(ctx, waitUntold) {
			for _, url := range urls {
				if url == "" {
					continue
				}
				// A database that does not answer at all is told by whoever uses it.
				what, err := postgres.Waits(ctx, pg.options(url, name))
				if err != nil || what == "" || ctx.Err() != nil || time.Since(told[what]) < waitReminder {
					continue
				}
				told[what] = time.Now()
				c.note("%s; still waiting. Ctrl-C stops it", what)
			}
		}
	})
	return func() {
		cancel()
		telling.Wait()
	}
}
