package logic

import (
	"context"
	"errors"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// WatchDirectoryLogic answers one call of watchDirectory.
type WatchDirectoryLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewWatchDirectoryLogic makes it.
func NewWatchDirectoryLogic(ctx context.Context, svcCtx *svc.ServiceContext) *WatchDirectoryLogic {
	return &WatchDirectoryLogic{ctx: ctx, svcCtx: svcCtx}
}

// WatchDirectory sends the directory and its changes until the caller goes away
// or the service stops.
func (l *WatchDirectoryLogic) WatchDirectory(in *trialv1.WatchDirectoryRequest, stream trialv1.Trial_WatchDirectoryServer) error {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-l.svcCtx.Stopping:
			cancel(edge.ErrStopping)
		case <-stop:
		}
	}()
	err := l.svcCtx.Directory.Follow(ctx, in.GetVersion(), func(c directory.Change) error {
		return stream.Send(wire.Change(&c))
	})
	if errors.Is(context.Cause(ctx), edge.ErrStopping) {
		return edge.ErrStopping
	}
	return err
}
