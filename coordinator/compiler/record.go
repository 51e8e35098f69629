package compiler

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/store"
)

// begin takes the app's place and writes down that a build is on its way. What
// it prints goes to out and is kept. The context that is returned ends also
// when the build is cancelled. After an error there is nothing of the build but its id.
func (c *Compiler) begin(ctx context.Context, r Request, out io.Writer) (*build, context.Context, error) {
	b := &build{Compiler: c, Request: r, id: uuid.NewString(), stack: cmp.Or(r.App.BuildStack, r.App.Stack), over: make(chan struct{})}
	ctx, b.cancel = context.WithCancelCause(store.By(ctx, r.Author))
	c.mu.Lock()
	busy := c.building[r.App.ID] != nil
	if !busy {
		c.building[r.App.ID] = b
	}
	c.mu.Unlock()
	if busy {
		b.cancel(nil) // else c.life would keep it
		return b, nil, ErrBusy
	}
	b.record = manifold.Build{
		ID: b.id, App: r.App.ID, User: r.By.Email, UserID: r.By.ID, Status: manifold.BuildPending,
		Version: r.Commit, Stack: b.stack, Buildpacks: r.App.Buildpacks, Output: rand.Text(),
	}
	kept, err := c.cfg.Outputs.Create(b.record.Output)
	if err != nil {
		b.leave()
		return b, nil, err
	}
	// The kept one first: it takes everything, whoever goes away.
	b.output, b.out = kept, &printer{w: io.MultiWriter(kept, out)}
	if err := b.write(ctx); err != nil {
		kept.Close()
		b.leave()
		return b, nil, err
	}
	return b, ctx, nil
}

// leave ends what a build holds but its output.
func (b *build) leave() {
	b.cancel(nil)
	b.free()
}

// free gives the app's place back, once: it may be another build's by now.
func (b *build) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.building[b.App.ID] == b {
		delete(b.building, b.App.ID)
		close(b.over)
	}
}

// write puts the build's record, and drops the outputs of those it pushed out.
func (b *build) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	forgotten, err := b.cfg.Store.PutBuild(ctx, &b.record)
	if err != nil {
		return fmt.Errorf("write down the build: %w", err)
	}
	return b.cfg.Outputs.Remove(forgotten...)
}

// retry is how soon what the store refused is tried again.
const retry = 5 * time.Second

// written writes down how the build ended, and says whether that is done: while
// it is not, the build looks pending to all.
func (b *build) written(ctx context.Context) bool {
	err := b.write(ctx)
	if err == nil || errors.Is(err, store.ErrNotFound) {
		return true
	}
	b.cfg.Log.Error("a build's end is not written down; trying again", "app", b.App.Name, "build", b.id, "error", err)
	return false
}

func (b *build) rewrite(ctx context.Context) {
	for {
		select {
		case <-time.After(retry):
			if b.written(ctx) {
				return
			}
		case <-b.life.Done(): // the next start marks it as failed
			return
		}
	}
}

// build runs a build that has begun to its end, and tells everyone of it: its
// place is free before its record is final, and that before its output ends,
// for whoever reads either and begins the next one.
func (b *build) build(ctx context.Context) (manifold.Release, error) {
	defer b.output.Close()
	defer b.leave()
	b.say("Build started by user %s", b.By.Email)
	release, err := b.run(ctx)
	b.free()
	b.record.Status = manifold.BuildFailed
	if err == nil {
		b.record.Status, b.record.Slug, b.record.Release = manifold.BuildSucceeded, release.Slug, release.ID
	}
	if !b.written(ctx) {
		b.background.Go(func() { b.rewrite(ctx) })
	}
	b.say("Build %s", b.record.Status)
	if err == nil {
		release, err = b.launch(ctx, release)
	}
	if err != nil {
		b.explain(err)
		b.cfg.Log.Info("build failed", "app", b.App.Name, "build", b.id, "commit", b.Commit, "error", err)
		return manifold.Release{}, fmt.Errorf("build %s: %w", b.App.Name, err)
	}
	b.cfg.Log.Info("build released", "app", b.App.Name, "build", b.id, "commit", b.Commit, "version", release.Version, "status", release.Status)
	return release, nil
}
