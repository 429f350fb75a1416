package app

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

// Times of the look at a role's own key: how long a start waits for tables that
// tell whether it was retired, and how often they are asked afterwards.
const (
	ownKeyPatience = time.Second
	ownKeyFirst    = 100 * time.Millisecond
)

// watchOwnKey keeps a role from signing with a key that was retired: nobody
// could rely on what it signs. Only tables tell, and a role starts without them;
// then it goes on until they are back and say so.
func watchOwnKey(ctx context.Context, p *process) (func(context.Context) error, error) {
	early, cancel := context.WithTimeout(ctx, ownKeyPatience)
	defer cancel()
	for early.Err() == nil {
		err := p.ownKey(early)
		if errors.Is(err, auth.ErrOwnKeyRetired) {
			return nil, err
		}
		if err == nil || !rest(early, ownKeyFirst) {
			break
		}
	}
	return p.inBackground(func(ctx context.Context) error {
		for rest(ctx, watchEvery) {
			limited, cancel := context.WithTimeout(ctx, watchLimit)
			err := p.ownKey(limited)
			cancel()
			if errors.Is(err, auth.ErrOwnKeyRetired) {
				p.fail(err)
				return nil
			}
		}
		return nil
	}), nil
}

// ownKey returns an error that wraps [auth.ErrOwnKeyRetired] when the facts say
// that the key that signs here was retired, another one when they cannot be read.
func (p *process) ownKey(ctx context.Context) error {
	facts, err := p.store.Keys(ctx)
	if err != nil {
		return err
	}
	certs := receipt.NewCertificates(p.keys.RootPublic())
	for _, f := range facts {
		certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired)
	}
	p.warnForeign(certs)
	return p.keys.Usable(certs.List())
}
