package git

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"manifold"
	"manifold/coordinator/compiler"
	"manifold/coordinator/store"
)

// pusher is who asks, from which address, with which token.
type pusher struct {
	manifold.User
	from, token string
}

// push is one git-receive-pack request, from its first byte to its last
// process.
type push struct {
	secret string // its hook shows it; nobody else knows it
	ctx    context.Context
	app    manifold.App
	who    pusher

	judging    sync.WaitGroup // the hook's request
	holds      bool           // it has the app's place in Server.busy
	quarantine string         // its objects, until git accepts them
}

func (s *Server) open(ctx context.Context, app manifold.App, who pusher) *push {
	p := &push{secret: rand.Text(), ctx: ctx, app: app, who: who}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushes[p.secret] = p
	return p
}

// close ends a push whose processes have all ended. Its context was cancelled
// before, so a build that still runs for it ends now. Only then, and after git
// has moved the refs, may the next push of the app be judged.
func (s *Server) close(p *push) {
	s.mu.Lock()
	delete(s.pushes, p.secret)
	s.mu.Unlock()
	p.judging.Wait()
	if p.quarantine != "" {
		// git removes it itself, unless it was killed.
		if err := os.RemoveAll(p.quarantine); err != nil {
			s.cfg.Log.Warn("a push's objects stay behind", "app", p.app.Name, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.holds {
		delete(s.busy, p.app.ID)
	}
}

// enter finds the push a hook speaks for, once, and takes the app's place.
func (s *Server) enter(secret string) (p *push, free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = s.pushes[secret]
	if p == nil {
		return nil, false
	}
	delete(s.pushes, secret)
	p.judging.Add(1)
	if s.busy[p.app.ID] {
		return p, false
	}
	s.busy[p.app.ID], p.holds = true, true
	return p, true
}

// Run serves the hook's socket until ctx ends, then waits for the pushes that
// are being judged, whose builds end with ctx too.
func (s *Server) Run(ctx context.Context) error {
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("listen for the git hook: %w", err)
	}
	l, err := net.Listen("unix", s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listen for the git hook: %w", err)
	}
	// Between the two calls only the secret keeps strangers out, which is
	// enough by itself.
	if err := os.Chmod(s.cfg.Socket, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("listen for the git hook: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /pre-receive", s.judge)
	server := &http.Server{
		// No ReadTimeout: it would end in the middle of a build.
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the git hook: %w", err)
	}
	return <-stopped
}

// judge answers one hook.
func (s *Server) judge(w http.ResponseWriter, r *http.Request) {
	var req verdictRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8*maxUpdates)).Decode(&req); err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	p, free := s.enter(req.Push)
	if p == nil {
		http.Error(w, "unknown push", http.StatusForbidden)
		return
	}
	defer p.judging.Done()
	w.Header().Set("Trailer", verdictTrailer)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")

	// The push lives as long as its client, its hook and this server.
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	defer context.AfterFunc(r.Context(), cancel)()
	out := &progress{w: w, control: http.NewResponseController(w), lost: cancel}
	defer out.close()
	verdict := refused
	var err error
	if p.quarantine, err = s.quarantine(p.app.ID, req.Quarantine); err != nil {
		s.cfg.Log.Error("push refused", "app", p.app.Name, "error", err)
		out.say("The coordinator could not read this push.")
	} else if !free {
		out.say("Another push to this app is being built. Wait until it has ended, then push again.")
	} else if s.decide(ctx, p, req.Updates, out) {
		verdict = accepted
	}
	w.Header().Set(verdictTrailer, verdict)
}

// update is one ref that a push moves. A hash of zeros is no object.
type update struct{ old, new, ref string }

func (u update) deletes() bool { return object(u.new) == "" }

// object is the name of an object, "" for the zeros that stand for none.
func object(hash string) string {
	if strings.Trim(hash, "0") == "" {
		return ""
	}
	return hash
}

// deployRefs are the branches whose push is a deploy.
var deployRefs = []string{"refs/heads/main", "refs/heads/master"}

// parseUpdates reads git's list: "<old> <new> <ref>\n" each.
func parseUpdates(text string) ([]update, error) {
	var updates []update
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if len(f) != 3 || !isHash(f[0]) || !isHash(f[1]) || !strings.HasPrefix(f[2], "refs/") {
			return nil, fmt.Errorf("git listed an update that cannot be read: %q", line)
		}
		updates = append(updates, update{old: f[0], new: f[1], ref: f[2]})
	}
	return updates, nil
}

// isHash accepts what SHA-1 and SHA-256 repositories name objects by.
func isHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// decide says whether git may move the refs, after deploying what is to be
// deployed.
//
//	one of main and master → its commit   build and release; accepted if that succeeds
//	both at once                          refused: which of them?
//	a deploy branch deleted               accepted; the app runs on
//	other branches, tags, anything else   accepted; nothing is deployed
func (s *Server) decide(ctx context.Context, p *push, list string, out *progress) bool {
	updates, err := parseUpdates(list)
	if err != nil {
		s.cfg.Log.Error("push refused", "app", p.app.Name, "error", err)
		out.say("The coordinator could not read this push.")
		return false
	}
	var deploys []update
	for _, u := range updates {
		switch deploy := slices.Contains(deployRefs, u.ref); {
		case deploy && u.deletes():
			out.say("Branch " + short(u.ref) + " is deleted. The app keeps running its last release.")
		case deploy:
			deploys = append(deploys, u)
		}
	}
	switch len(deploys) {
	case 0:
		s.acceptOnly(updates, out)
		return true
	case 1:
		return s.deploy(ctx, p, deploys[0], out)
	}
	out.say("Both main and master were pushed, and an app runs only one of them. Nothing was deployed.",
		"Push the one to deploy by itself, such as: git push REMOTE main")
	return false
}

// acceptOnly tells of refs that are kept and deploy nothing.
func (s *Server) acceptOnly(updates []update, out *progress) {
	const most = 10
	said := 0
	for _, u := range updates {
		branch, ok := strings.CutPrefix(u.ref, "refs/heads/")
		if !ok || u.deletes() || slices.Contains(deployRefs, u.ref) {
			continue
		}
		if said++; said > most {
			break
		}
		out.say("Branch "+branch+" was pushed, but nothing was deployed: only main and master are.",
			"To deploy it: git push REMOTE "+branch+":main")
	}
}

// deploy builds and releases one commit.
func (s *Server) deploy(ctx context.Context, p *push, u update, out *progress) bool {
	// The client made its push from refs it read before this one had its
	// turn. git would find that out after the release was made.
	tip, err := s.tip(ctx, p.app.ID, u.ref)
	if err == nil && tip != object(u.old) {
		out.say("Branch "+short(u.ref)+" was moved by another push meanwhile. Nothing was deployed.", "Fetch it, and push again.")
		return false
	}
	takes := false
	if err == nil {
		takes, err = s.takes(ctx, p, u.new, out)
	}
	if err != nil {
		s.cfg.Log.Error("push refused", "app", p.app.Name, "error", err)
		out.say("The coordinator could not read the app's repository. Nothing was deployed; push again.")
		return false
	}
	if !takes {
		return false
	}
	_, err = s.cfg.Builder.Build(ctx, compiler.Request{
		App: p.app, By: p.who.User, Commit: u.new,
		Author: &store.Author{ID: p.who.ID, Email: p.who.Email, From: p.who.from, Authorization: p.who.token, Via: "git push"},
		Source: func(w io.Writer) error { return s.archive(ctx, p.app.ID, p.quarantine, u.new, w) },
	}, out)
	if err != nil {
		out.raw("\nVerifying deploy...\n\n!\tPush rejected to " + p.app.Name + ".\n\n")
		return false
	}
	// Not before: what a clone checks out must be there. The release is made,
	// so that the push is taken whatever becomes of this, or of its client.
	if err := s.follow(context.WithoutCancel(ctx), p.app.ID, u.ref); err != nil {
		s.cfg.Log.Warn("clones go on to check out another branch", "app", p.app.Name, "error", err)
	}
	return true
}

// takes says whether git will let a branch be what was pushed, and if not, the
// pusher why. git finds that out behind the hook, when the release is made.
func (s *Server) takes(ctx context.Context, p *push, hash string, out *progress) (bool, error) {
	kind, err := s.look(ctx, p.app.ID, p.quarantine, "cat-file", "-t", hash).Output()
	if err != nil {
		return false, fmt.Errorf("git cat-file: %w", err)
	}
	if kind := strings.TrimSpace(string(kind)); kind != "commit" {
		out.say("A branch leads to a commit, and this is a "+kind+". Nothing was deployed.", "To deploy the commit of a tag: git push REMOTE TAG^{}:refs/heads/main")
		return false, nil
	}
	walk, stderr := s.look(ctx, p.app.ID, p.quarantine, "rev-list", "--quiet", hash, "--not", "--all"), &clipped{}
	walk.Stderr = stderr
	err = walk.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		s.cfg.Log.Info("push refused: its history has a hole", "app", p.app.Name, "git", strings.TrimSpace(stderr.String()))
		out.say("This commit was pushed without all that came before it, as from a shallow clone. Nothing was deployed.",
			"Fetch the rest, then push again: git fetch --unshallow")
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("git rev-list: %w", err)
	}
	return true, nil
}

func short(ref string) string { return strings.TrimPrefix(ref, "refs/heads/") }
