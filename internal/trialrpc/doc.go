// Package trialrpc is the Trial service: the registry of trials over gRPC, on
// go-zero's zRPC, and the client by which gateways follow it. It is the only
// home of go-zero; what goctl made is sealed in internal/.
//
// # Who may call
//
// Without TLS the service listens on loopback only and believes that whoever is
// on this machine is a trusted service. On any other address both sides show
// certificates of rpcTLS.ca, an authority for Tidegate's own parts and nobody
// else: a connection that stands is that of a trusted service. That is enough
// for getPatientTrials, so that a client of the original contract works
// unchanged, and for watchDirectory, by which gateways fill their directory.
// Every other method also needs the token of a staff member, and what that
// person may do is decided as it is over HTTP.
//
// # go-zero
//
// What go-zero does when it is imported, started or configured, and what
// Tidegate does about it (docs/adr/009-trial-service-on-go-zero.md):
//
//   - It handles SIGTERM and SIGINT from its import on: after a second it stops
//     servers, after 5.5 it signals the process again, which Tidegate would take
//     for impatience. Both times are put out of reach (tame). SIGUSR1 and SIGUSR2
//     go on writing goroutines and a profile into the temporary folder.
//   - RpcServer.Stop closes the logger, not the server, and Start returns only
//     when the whole process stops. The *grpc.Server is taken in the register
//     function and stopped here; Start is released after it (host).
//   - Its Stat and Duration middlewares write requests into the log; its
//     recovery writes, and answers, the value of a panic; its traces hold the
//     text of errors. All are off; see intercept.go for what stands instead.
//   - Loaded configuration is full of defaults (profiles on port 6060, a tracer
//     provider of its own, CPU shedding), and passes over unknown keys. The
//     configuration is made in Go (config.Config), and etc/trial.yaml is read
//     strictly, by us.
//   - It registers a server only if etcd is there at the start, and publishes
//     the first address of the machine for 0.0.0.0. See announce.go.
//   - Its client asks etcd while it is being made, and forgets all instances when
//     the list is empty for a moment. See resolve.go.
//   - Its log goes to standard output. It is turned into slog (logx.go).
//   - It replaces OpenTelemetry's global propagator and gRPC's global logger.
//     Tidegate uses neither.
//   - It links the client of Kubernetes unless built with the tag no_k8s.
//   - It starts goroutines at its import (CPU usage, signals), which never end.
package trialrpc

//go:generate go run -C ../../tools/goctl ./generate
