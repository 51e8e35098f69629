// Package router is the HTTP router: it takes requests from clients and gives
// each to one up web dyno of the app its Host header names.
package router

import (
	"context"
	"log/slog"
	"time"

	"manifold"
)

// Config says where a router lives. Zero Timeouts mean the defaults.
type Config struct {
	Settings  manifold.Settings
	Dir       string // identity.json, table.json; "" is Settings.Home/router
	TokenFile string // holds the join token; read at the first start only
	Log       *slog.Logger
	Timeouts  Timeouts
}

// Timeouts of a request's way. Zero is the default given beside each.
type Timeouts struct {
	Connect    time.Duration // 5 s: TCP connect to a dyno (H19)
	FirstByte  time.Duration // 30 s: request sent to first byte of the response (H12)
	Idle       time.Duration // 55 s: without a byte in either direction (H15, H28)
	Boot       time.Duration // 75 s: a request waits for a starting dyno (H20)
	Quarantine time.Duration // 5 s: a dyno that could not be connected to is left alone
	KeepAlive  time.Duration // 60 s: idle client connection
	Header     time.Duration // 30 s: reading a request's line and headers
	DynoIdle   time.Duration // 90 s: idle connection to a dyno
	Drain      time.Duration // 30 s: open requests at shutdown (H24)
}

// Run serves until ctx ends, then lets open requests finish for at most
// Timeouts.Drain.
func Run(ctx context.Context, cfg Config) error {
	<-ctx.Done()
	return nil
}
