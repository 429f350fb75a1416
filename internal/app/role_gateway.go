package app

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
)

// pendingLimit bounds the counting of reports that are not in the tables yet: a
// gateway far ahead of the projector says that it cannot, not nothing.
const pendingLimit = 20 * time.Second

// startPublic opens the public listener. Before this nothing listens there: a
// phone that is refused a connection surely was not heard, and tries elsewhere.
func startPublic(ctx context.Context, p *process) (func(context.Context) error, error) {
	p.projecting = p.watchProjector()
	o := p.gatewayOptions(p.version)
	o.Credentials = lateCredentials{p.secrets}
	o.Pending = func(ctx context.Context, shard uint32, after journal.Position) (map[string]uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, pendingLimit)
		defer cancel()
		return projector.PendingReports(ctx, p.journal, shard, after)
	}
	o.Directory, o.Dependencies = p.registry, p.dependencies()
	o.Metrics, o.Role = p.site.parts, p.role
	o.Config.StopTimeout = stopListener
	g, err := gateway.New(o)
	if err != nil {
		return nil, err
	}
	l, err := listen(p.cfg.HTTP, "http", "--http")
	if err != nil {
		return nil, err
	}
	publicCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := g.ServePublic(publicCtx, l)
		if publicCtx.Err() == nil {
			p.fail(errors.Join(errors.New("the public listener ended"), err))
		}
		done <- err
	}()
	g.SetReady(true)
	admin := g.Admin()
	p.site.full.Store(&admin)
	p.listens = []any{"http", l.Addr().String()}
	return func(limit context.Context) error {
		g.SetReady(false)
		stop()
		return inTime(limit, func() error { return <-done })
	}, nil
}

// dependencies are what /status names of a role that runs alone.
func (p *process) dependencies() []gateway.Dependency {
	deps := []gateway.Dependency{{Name: "tables", Check: p.tables.now}}
	if p.role != roleProjector {
		deps = append(deps, gateway.Dependency{Name: "journal", Check: p.stateOfJournal})
	}
	if p.secrets != nil {
		deps = append(deps, gateway.Dependency{Name: "vault", Check: p.secrets.now})
	}
	if p.projecting != nil {
		deps = append(deps, gateway.Dependency{Name: "projector", Check: p.projecting.now})
	}
	if p.client != nil {
		deps = append(deps, p.clientStates()...)
	}
	if p.rpc != nil {
		deps = append(deps, gateway.Dependency{Name: "trial service", Check: func() gateway.State { return stateOfRPC(p.rpc, p.rpcEtcd) }})
		if p.rpcEtcd {
			deps = append(deps, gateway.Dependency{Name: "etcd", Check: func() gateway.State { return etcdOfRPC(p.rpc) }})
		}
	}
	if p.lead != nil {
		deps = append(deps, p.lead.dependencies()...)
	}
	return deps
}
