package gateway

import (
	"context"
	"time"
)

// paceRows is how many rows of an export go out between two looks at the
// phones: about a millisecond of work.
const paceRows = 100

// waveWindow is how long after the last report a wave counts as under way.
const waveWindow = time.Second

// pace keeps a long export from taking the processor that an answer to a phone
// needs: while reports come in it rests as long as it works. Go's scheduler
// would else let a phone wait for the export's whole time slice, 10 ms, several
// times on the way of one report.
type pace struct {
	s     *Server
	since time.Time // when the work since the last rest began
}

// rest is called between two parts of the work. It returns ctx's error.
func (p *pace) rest(ctx context.Context) error {
	now := time.Now()
	worked := now.Sub(p.since)
	if now.UnixNano()-p.s.lastReport.Load() < int64(waveWindow) {
		timer := time.NewTimer(min(worked, 50*time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	p.since = time.Now()
	return ctx.Err()
}
