package trialrpc

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/zeromicro/go-zero/core/logx"
)

// bridge is go-zero's log as slog. go-zero has one log for a process, so the
// logger is that of the last service or client made; before the first, and in
// commands that have none, what go-zero says is dropped.
//
// What it says of slow calls and of panics may hold requests: of those it is
// told that there was one, and no more.
type bridge struct{ log atomic.Pointer[slog.Logger] }

var (
	logs bridge

	_ logx.Writer = &logs
)

const maxSaid = 300 // bytes of a line of go-zero's

func (b *bridge) say(level slog.Level, v any) {
	if log := b.log.Load(); log != nil {
		line, _, _ := strings.Cut(fmt.Sprint(v), "\n")
		log.Log(context.Background(), level, "go-zero", "said", line[:min(len(line), maxSaid)])
	}
}

func (b *bridge) withheld(level slog.Level, what string) {
	if log := b.log.Load(); log != nil {
		log.Log(context.Background(), level, "go-zero told of something whose text may hold a request; it is withheld", "what", what)
	}
}

// Debug implements logx.Writer, as do the rest.
func (b *bridge) Debug(v any, _ ...logx.LogField) { b.say(slog.LevelDebug, v) }

// Info is go-zero's chatter.
func (b *bridge) Info(v any, _ ...logx.LogField) { b.say(slog.LevelDebug, v) }

// Error is also gRPC's own.
func (b *bridge) Error(v any, _ ...logx.LogField) { b.say(slog.LevelWarn, v) }

// Alert is a breaker's that opened.
func (b *bridge) Alert(v any) { b.say(slog.LevelWarn, v) }

// Slow is a call with its content.
func (b *bridge) Slow(any, ...logx.LogField) { b.withheld(slog.LevelWarn, "slow call") }

// Severe is a panic's value with its stack.
func (b *bridge) Severe(any) { b.withheld(slog.LevelError, "severe") }

// Stack is the same.
func (b *bridge) Stack(any) { b.withheld(slog.LevelError, "stack") }

// Stat is counted elsewhere.
func (b *bridge) Stat(any, ...logx.LogField) {}

// Close is called by go-zero when it thinks that the process ends.
func (b *bridge) Close() error { return nil }
