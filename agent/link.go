package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"manifold"
)

// uplink is the line to the coordinator, which may not be known yet: whoever
// uses it waits until the host has joined.
type uplink struct {
	ready chan struct{} // closed once link is set
	link  *manifold.Link
}

func newUplink() *uplink { return &uplink{ready: make(chan struct{})} }

func (u *uplink) set(l *manifold.Link) {
	u.link = l
	close(u.ready)
}

func (u *uplink) wait(ctx context.Context) (*manifold.Link, error) {
	select {
	case <-u.ready:
		return u.link, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("this host has not joined a coordinator yet: %w", ctx.Err())
	}
}

func (u *uplink) Do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	l, err := u.wait(ctx)
	if err != nil {
		return nil, err
	}
	return l.Do(ctx, method, path, body, header)
}

func (u *uplink) Post(ctx context.Context, path string, v any) error {
	l, err := u.wait(ctx)
	if err != nil {
		return err
	}
	return l.Post(ctx, path, v)
}

func (u *uplink) Stream(ctx context.Context, path string, each func(line []byte) error) error {
	l, err := u.wait(ctx)
	if err != nil {
		return err
	}
	return l.Stream(ctx, path, each)
}

func (u *uplink) Attach(ctx context.Context, session string) (io.ReadWriteCloser, manifold.Attach, error) {
	l, err := u.wait(ctx)
	if err != nil {
		return nil, manifold.Attach{}, err
	}
	return l.Attach(ctx, session)
}

// join makes sure there is an identity, by the join token if need be, and
// opens the line. It tries until it is done or ctx ends: coordinator and
// agent may start in any order.
func (a *agent) join(ctx context.Context) {
	pause := backoff{first: 200 * time.Millisecond, last: 10 * time.Second}
	told := ""
	for {
		id, err := a.identify(ctx)
		var link *manifold.Link
		if err == nil {
			link, err = manifold.NewLink(a.cfg.FleetAddr, id)
		}
		if err == nil {
			a.setIdentity(id)
			a.uplink.set(link)
			a.log.Info("joined", "host", id.ID, "cluster", id.Cluster, "coordinator", a.cfg.FleetAddr)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != told { // once each, not every few seconds
			told = err.Error()
			a.log.Warn("not joined yet, will try again", "error", err)
		}
		if !pause.wait(ctx) {
			return
		}
	}
}

func (a *agent) identify(ctx context.Context) (manifold.Identity, error) {
	id, err := readIdentity(a.home)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if a.fresh.ID == "" { // else the disk did not take it: asked again, the coordinator would know one host more each time
		if a.fresh, err = a.ask(ctx); err != nil {
			return id, err
		}
	}
	text, err := json.Marshal(a.fresh)
	if err != nil {
		return id, err
	}
	if err := writeFile(a.home.identity(), text); err != nil {
		return id, fmt.Errorf("keep the identity: %w", err)
	}
	return a.fresh, syncFile(a.home.identity())
}

// ask gets an identity from the coordinator.
func (a *agent) ask(ctx context.Context) (id manifold.Identity, err error) {
	token, err := os.ReadFile(a.cfg.JoinTokenFile)
	if err != nil {
		return id, fmt.Errorf("read the join token (MANIFOLD_JOIN_TOKEN_FILE; print one with: manifold-coordinator join-token): %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return id, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return manifold.Join(ctx, a.cfg.FleetAddr, strings.TrimSpace(string(token)), manifold.RoleAgent, name)
}

func readIdentity(h home) (manifold.Identity, error) {
	var id manifold.Identity
	text, err := os.ReadFile(h.identity())
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(text, &id); err != nil {
		return id, fmt.Errorf("read %s: %w; to join anew, move the file away", h.identity(), err)
	}
	return id, nil
}

// follow takes in every Desired the coordinator sends, until ctx ends. What
// cannot be used changes nothing: the host stays with what it last knew.
func (a *agent) follow(ctx context.Context) {
	pause := backoff{first: 200 * time.Millisecond, last: 5 * time.Second}
	away := false
	for ctx.Err() == nil {
		err := a.up.Stream(ctx, "/fleet/v1/desired", func(line []byte) error {
			var d manifold.Desired
			if err := json.Unmarshal(line, &d); err != nil {
				return fmt.Errorf("read what the coordinator desires: %w", err)
			}
			if err := a.accept(d); err != nil {
				return err
			}
			if away {
				a.log.Info("the coordinator is back")
			}
			away = false
			pause.reset()
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		a.log.Log(ctx, firstTime(&away), "the line to the coordinator broke; dynos run on, trying again", "error", err)
		pause.wait(ctx)
	}
}

// firstTime picks a louder level the first time something goes wrong.
func firstTime(already *bool) slog.Level {
	if *already {
		return slog.LevelDebug
	}
	*already = true
	return slog.LevelWarn
}
