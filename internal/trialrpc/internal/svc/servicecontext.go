// Package svc holds what the methods of the Trial service depend on.
package svc

import (
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/config"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
)

// ServiceContext is what the methods depend on.
type ServiceContext struct {
	Config    config.Config
	Edge      *edge.Edge
	Directory directory.Source
	Stopping  <-chan struct{} // closed when the service stops: streams end
}
