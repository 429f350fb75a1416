package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/vault"
)

// A watch asks a dependency now and then how it is, so that whoever wants to
// know is answered from memory.
type watch struct{ state atomic.Pointer[gateway.State] }

// Times of a watch: how often it asks, and how long an answer may take.
const (
	watchEvery = 5 * time.Second
	watchLimit = 2 * time.Second
)

func (w *watch) now() gateway.State { return *w.state.Load() }

// run asks until ctx is done.
func (w *watch) run(ctx context.Context, every time.Duration, ask func(context.Context) gateway.State) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, watchLimit)
		s := ask(limited)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if old := w.state.Load(); !s.OK && old != nil && !old.OK {
			s.Since = old.Since // since it began, not since it was last asked
		}
		w.state.Store(&s)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// watchVault watches the vault until the node stops, which is before the vault
// is closed. It was opened a moment ago, so it begins as well.
func (n *node) watchVault() *watch {
	w := &watch{}
	w.state.Store(&gateway.State{OK: true, State: "serving"})
	stop := n.inBackground(func(ctx context.Context) error { return w.run(ctx, watchEvery, n.askVault) })
	n.stops = append(n.stops, step{"the watch on the vault", stop})
	return w
}

// askVault reads from the vault what is never there. The file is looked for
// too: a process that has it open would not miss it.
func (n *node) askVault(ctx context.Context) gateway.State {
	_, err := os.Stat(n.path(fileVault))
	if err == nil {
		if _, err = n.vault.Credential(ctx, "status"); errors.Is(err, vault.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return gateway.State{State: "failing", Since: time.Now(), Note: fmt.Sprintf("staff cannot sign in, reports are still taken (%v): look at the disk, or stop and restore %s from the backup", err, fileVault)}
	}
	return gateway.State{OK: true, State: "serving"}
}
