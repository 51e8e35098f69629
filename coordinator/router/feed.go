package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manifold"
)

const (
	identityFile = "identity.json"
	tableFile    = "table.json"
)

var ackEvery = 5 * time.Second // but in a test

// feed keeps the table up to date and the coordinator informed.
type feed struct {
	cfg    Config
	tables *tables
	ship   *shipper
	log    *slog.Logger
	news   chan struct{} // 1: something the coordinator should be told at once
}

func (f *feed) notify() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// restore puts the last good table from disk in force, if there is one.
func (f *feed) restore() {
	raw, err := os.ReadFile(filepath.Join(f.cfg.Dir, tableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = f.tables.apply(raw)
	}
	if err != nil {
		f.log.Error("the last route table on disk is of no use; waiting for the coordinator's", "err", err)
	}
}

// run joins if this router never did, then follows the coordinator until ctx
// ends.
func (f *feed) run(ctx context.Context) {
	id, err := f.identity(ctx)
	if err != nil {
		return // ctx ended
	}
	f.tables.belong(id.Cluster)
	link, err := manifold.NewLink(f.cfg.Settings.FleetAddr, id)
	if err != nil {
		f.log.Error("this router's identity is damaged: remove the file and start again, and it joins anew",
			"file", filepath.Join(f.cfg.Dir, identityFile), "err", err)
		<-ctx.Done()
		return
	}
	shipped, acked := make(chan struct{}), make(chan struct{})
	go func() { defer close(shipped); f.ship.run(ctx, link, id.ID) }()
	go func() { defer close(acked); f.acknowledge(ctx, link) }()
	f.follow(ctx, link)
	<-shipped
	<-acked
}

// follow applies each table that comes. While none does, the last stays.
func (f *feed) follow(ctx context.Context, link *manifold.Link) {
	said := false
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		err := link.Stream(ctx, "/fleet/v1/routes", func(raw []byte) error {
			pause, said = 100*time.Millisecond, false
			f.take(raw)
			return nil
		})
		if ctx.Err() == nil && !said {
			f.log.Warn("the coordinator is away; serving on from the last route table", "err", err)
			said = true
		}
		sleep(ctx, pause/2+rand.N(pause))
	}
}

// take puts one table in force and on disk. Whatever is wrong with it, the
// router serves on from the last good one.
func (f *feed) take(raw []byte) {
	if err := f.tables.apply(raw); err != nil {
		f.log.Error("refused a route table; serving on from the last good one", "err", err)
		return
	}
	if err := writeFile(filepath.Join(f.cfg.Dir, tableFile), raw); err != nil {
		f.log.Error("cannot keep the route table on disk", "err", err)
	}
	f.notify()
}

// acknowledge tells the coordinator which table is in force and which
// withdrawn dynos still have requests open: at once when that changes, and
// every ackEvery, since a message may be lost.
func (f *feed) acknowledge(ctx context.Context, link *manifold.Link) {
	tick := time.NewTicker(ackEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.news:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !f.tables.current.Load().known {
			continue
		}
		post, cancel := context.WithTimeout(ctx, ackEvery)
		err := link.Post(post, "/fleet/v1/routes/ack", f.tables.ack())
		cancel()
		if err != nil && ctx.Err() == nil {
			f.log.Debug("route table not acknowledged; trying again soon", "err", err)
		}
	}
}

// identity reads who this router is, or joins to become somebody. It tries
// until ctx ends: the coordinator may not be there yet, nor its token.
func (f *feed) identity(ctx context.Context) (manifold.Identity, error) {
	path := filepath.Join(f.cfg.Dir, identityFile)
	var id manifold.Identity
	raw, err := os.ReadFile(path)
	if err == nil {
		if err = json.Unmarshal(raw, &id); err == nil && id.ID != "" {
			return id, nil
		}
		f.log.Error("this router's identity is damaged; joining anew", "file", path)
	}
	host, _ := os.Hostname()
	said := ""
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		id, err = f.join(ctx, host)
		if err == nil {
			if raw, err = json.Marshal(id); err == nil {
				err = writeFile(path, raw)
			}
		}
		if err == nil {
			f.log.Info("joined the coordinator", "router", id.ID, "cluster", id.Cluster)
			return id, nil
		}
		if ctx.Err() != nil {
			return manifold.Identity{}, ctx.Err()
		}
		if err.Error() != said {
			said = err.Error()
			f.log.Warn("not joined yet; trying on", "err", err)
		}
		sleep(ctx, pause)
	}
}

func (f *feed) join(ctx context.Context, host string) (manifold.Identity, error) {
	token, err := os.ReadFile(f.cfg.TokenFile)
	if err != nil {
		return manifold.Identity{}, fmt.Errorf("read join token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return manifold.Join(ctx, f.cfg.Settings.FleetAddr, strings.TrimSpace(string(token)), manifold.RoleRouter, host)
}

// writeFile puts content in place of the file's old one, so that whoever
// reads it, after whatever kill, finds one or the other whole.
func writeFile(path string, content []byte) error {
	aside := path + ".new"
	if err := os.WriteFile(aside, content, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, path)
}
