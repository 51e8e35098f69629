// Package router is the HTTP router: a process of its own that takes requests
// from clients and gives each to one up web dyno of the app its Host names,
// chosen at random. It follows the coordinator's route table, keeps the last
// good one on disk, and serves on from it when the coordinator is gone.
//
// It must never fail a request because a table changed, never send a request
// that an app may have seen to another dyno, never let one app's log or load
// slow another's requests, and never hold state that a restart would miss.
package router

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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
	PerDyno   int          // requests in progress on this router per web dyno of an app; 0 is 200 (H11)
	Listener  net.Listener // nil: Settings.RouterAddr
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

func (c Config) withDefaults() Config {
	c.Dir = cmp.Or(c.Dir, filepath.Join(c.Settings.Home, "router"))
	c.PerDyno = cmp.Or(c.PerDyno, 200)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	t := &c.Timeouts
	for _, d := range []struct {
		value   *time.Duration
		seconds time.Duration
	}{
		{&t.Connect, 5}, {&t.FirstByte, 30}, {&t.Idle, 55}, {&t.Boot, 75}, {&t.Quarantine, 5},
		{&t.KeepAlive, 60}, {&t.Header, 30}, {&t.DynoIdle, 90}, {&t.Drain, 30},
	} {
		*d.value = cmp.Or(*d.value, d.seconds*time.Second)
	}
	return c
}

// Run serves until ctx ends, then lets open requests finish for at most
// Timeouts.Drain. It returns an error only when it cannot begin.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	takeShortTurns()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the router's directory: %w", err)
	}
	ln := cfg.Listener
	if ln == nil {
		var err error
		if ln, err = listen(cfg.Settings.RouterAddr, cfg.Log); err != nil {
			return fmt.Errorf("listen for apps' requests (MANIFOLD_ROUTER_ADDR says where): %w", err)
		}
	}
	f := &feed{cfg: cfg, ship: newShipper(cfg.Log), log: cfg.Log, news: make(chan struct{}, 1)}
	f.tables = newTables(f.notify)
	f.restore()
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s := &server{ctx: life, cfg: cfg, logger: cfg.Log, tables: f.tables, ship: f.ship, clients: map[*client]struct{}{}}

	// The feed outlives ctx: while requests end, acks and log lines still go.
	following, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	const loops = 4
	ended := make(chan struct{}, loops)
	start := func(do func()) {
		go func() { do(); ended <- struct{}{} }()
	}
	start(func() { f.run(following) })
	start(func() { s.reap(following) })
	accepted := make(chan struct{})
	start(func() { defer close(accepted); s.accept(ln) })
	start(func() { notify(ctx, ln, cfg.Log) })
	cfg.Log.Info("routing", "addr", ln.Addr().String())
	<-ctx.Done()
	ln.Close()
	<-accepted
	s.shutdown(cfg.Timeouts.Drain, cut)
	leave()
	for range loops {
		<-ended
	}
	return nil
}
