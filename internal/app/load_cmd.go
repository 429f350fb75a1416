package app

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

type loadCmd struct {
	Target   string        `help:"Base URL of the server." required:""`
	Data     string        `help:"The server's data folder: its keys make the phones' tokens." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Trial    string        `help:"Trial the phones report for." default:"T001"`
	Phones   int           `help:"Phones; phone i is participant P-000001 and on." default:"10000"`
	Over     time.Duration `help:"Every phone means to send within this time." default:"60s"`
	Shape    string        `help:"wave: steep rise and slow fall, as after a reminder. uniform: evenly. burst: all at once." enum:"wave,uniform,burst" default:"wave"`
	Retry    bool          `help:"Try again as a phone does: same id, back-off with jitter, Retry-After honoured."`
	Grace    time.Duration `help:"How long after --over phones still try." default:"2m"`
	TLSFresh bool          `help:"A new TLS 1.3 connection for each try." name:"tls-fresh"`
	CA       string        `help:"PEM file of the authority that signed the server's certificate." type:"path"`
	Insecure bool          `help:"Take any certificate."`
	Bulk     int           `help:"Send this many reports in one NDJSON request, with a relay's token."`
	Acks     string        `help:"Append every acknowledgement to this file (NDJSON); tidegate verify --acks reads it." type:"path"`
	Seed     uint64        `help:"Seed of schedule and ids; without it a fresh one."`
	JSON     bool          `help:"Print JSON."`
}

// Help shows an example.
func (loadCmd) Help() string {
	return help(`Open loop: the schedule is fixed before the start, and latency counts from the moment a phone meant to send,
so a stalled server shows. Exit code 0 when every phone was acknowledged.`, "tidegate load --target http://127.0.0.1:8080 --data data/demo --phones 10000 --over 60s --retry --acks acks.ndjson")
}

// Run sends a wave.
func (c loadCmd) Run(ctx context.Context, con *console) error {
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	summary, err := load.Run(ctx, load.Options{
		Target: c.Target, Keys: keys, Trial: c.Trial, Phones: c.Phones, Over: c.Over, Shape: load.Shape(c.Shape), Seed: c.Seed,
		Retry: c.Retry, Grace: c.Grace, TLSFresh: c.TLSFresh, InsecureTLS: c.Insecure, CAFile: c.CA, Bulk: c.Bulk, AcksFile: c.Acks,
		Progress: func(p load.Progress) { con.progress("%s", p) },
	})
	con.progressDone()
	if errors.Is(err, load.ErrOptions) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = con.printJSON(summary)
	} else {
		con.printf("%s", summary.String())
	}
	if err == nil && !summary.Clean() {
		err = errFindings
	}
	return err
}
