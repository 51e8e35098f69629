package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"manifold"
	"manifold/isolation"
	"manifold/slugfs"
	"manifold/supervisor"
)

// launch gets a run going: images, input, box. It is what Launch means, and
// finds out by itself what was done of it before.
func (d *driver) launch(ctx context.Context, dyno supervisor.Dyno, found box) message {
	if found != nil {
		if started(ctx, found) {
			return message{event: supervisor.Event{Kind: supervisor.Launched}, box: found}
		}
		if err := found.Remove(); err != nil { // half-built by an agent that died
			return failed(err)
		}
	}
	if d.assignment.Attach != nil {
		return d.launchFor(ctx, dyno)
	}
	b, err := d.build(ctx, dyno, nil)
	if err != nil {
		return failed(err)
	}
	return message{event: supervisor.Event{Kind: supervisor.Launched}, box: b}
}

func failed(err error) message {
	return message{event: supervisor.Event{
		Kind: supervisor.LaunchFailed, Detail: err.Error(),
		Checksum: errors.Is(err, slugfs.ErrDigest), NoClient: errors.Is(err, errNoClient),
	}}
}

// settle bounds how long a PID 1 whose agent died over its start may take to
// run the app, where it was told what that is, or else to see that, and to end.
const settle = time.Minute

// started tells a box that runs or ran from one that never came that far:
// PID 1 leaves a record whenever it started the app, and ends without one
// when its agent died before. On a busy host either takes its time.
func started(ctx context.Context, b box) bool {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		select {
		case <-b.Done():
			_, err := b.Exit()
			return !errors.Is(err, isolation.ErrNoRecord)
		default:
		}
		if b.Begun() || !sleep(ctx, 5*time.Millisecond) {
			return true
		}
	}
}

// build makes the run's box. client, if there is one to be, is waited for last.
func (d *driver) build(ctx context.Context, dyno supervisor.Dyno, client *visit) (box, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	as := d.assignment
	layers, err := d.mounts(ctx)
	defer func() {
		for _, l := range layers {
			l.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	spec := isolation.Spec{
		Run: dyno.Run, Layers: layers, Argv: argv(as), Env: environ(as, dyno.Port), Dir: appHome,
		Size: as.Size, Grace: dyno.Plan.Grace, TTL: as.TTL, LogLimit: d.a.cfg.LogLimit, Addr: dyno.Addr,
	}
	if as.Job != nil {
		input, err := d.input(ctx, dyno.Run)
		if err != nil {
			return nil, err
		}
		defer input.Close()
		spec.Stdin = input
	}
	if client != nil {
		if <-client.done; client.err != nil {
			return nil, client.err
		}
		attach := isolation.Attach(client.attach)
		spec.Attach = &attach
	}
	select {
	case d.a.starts <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-d.a.starts }()
	return d.a.boxes.Start(ctx, spec)
}

// mounts brings the images here and mounts them, top first.
func (d *driver) mounts(ctx context.Context) (layers []*os.File, err error) {
	for _, img := range d.assignment.Layers {
		if err := d.fetch(ctx, img); err != nil {
			return layers, err
		}
		m, err := d.a.images.Mount(img)
		if err != nil {
			return layers, fmt.Errorf("mount image %s: %w", img.Digest, err)
		}
		layers = append(layers, m)
	}
	return layers, nil
}

// fetch waits for a coordinator that is away as long as the dyno is wanted;
// only what no waiting mends is an error.
func (d *driver) fetch(ctx context.Context, img manifold.Image) error {
	get := func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return download(ctx, d.a.up, "/fleet/v1/images/"+img.Digest, offset)
	}
	return d.persist(ctx, "an image", func() error { return d.a.images.Fetch(ctx, img, get) })
}

// persist does try until it succeeds, fails for good, or ctx ends.
func (d *driver) persist(ctx context.Context, what string, try func() error) error {
	pause := backoff{first: 200 * time.Millisecond, last: 10 * time.Second}
	for {
		err := try()
		if err == nil || ctx.Err() != nil || forGood(err) {
			return err
		}
		d.log.Info(what+" is on its way, trying again", "error", err)
		if !pause.wait(ctx) {
			return err
		}
	}
}

// forGood tells an error that waiting does not mend.
func forGood(err error) bool {
	var status *manifold.StatusError
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return false // a matter of the line, or of load
		}
		return status.Status/100 == 4
	}
	var path *os.PathError
	return errors.Is(err, slugfs.ErrDigest) || errors.Is(err, slugfs.ErrTooLarge) || errors.Is(err, slugfs.ErrImage) || errors.As(err, &path)
}

// download gets a body from offset on, and gives it up when nothing comes for
// a while.
func download(ctx context.Context, up coordinator, path string, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	res, err := up.Do(ctx, http.MethodGet, path, nil, header)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &patient{body: res.Body, cancel: cancel}
	body.silence = time.AfterFunc(manifold.StreamSilence, func() { cancel(errSilent) })
	if offset > 0 && res.StatusCode != http.StatusPartialContent {
		if _, err := io.CopyN(io.Discard, body, offset); err != nil { // sent from the start
			body.Close()
			return nil, err
		}
	}
	return body, nil
}

var errSilent = errors.New("the transfer fell silent")

// patient cancels a request whose body stands still.
type patient struct {
	body    io.ReadCloser
	silence *time.Timer
	cancel  context.CancelCauseFunc
}

func (p *patient) Read(b []byte) (int, error) {
	p.silence.Reset(manifold.StreamSilence)
	return p.body.Read(b)
}

func (p *patient) Close() error {
	p.silence.Stop()
	p.cancel(nil)
	return p.body.Close()
}

const appHome = "/app"

// profile is what a dyno runs first: profile scripts of the slug in the same
// shell as the command's, so that they may set variables for it, or end it.
const profile = `for f in /app/.profile.d/*.sh; do [ -r "$f" ] && . "$f"; done
unset f
[ -r /app/.profile ] && . /app/.profile
exec /bin/bash -c "$1"`

func argv(a manifold.Assignment) []string {
	return []string{"/bin/bash", "-c", profile, a.Dyno, a.Command}
}

// environ is what the app sees: config vars over the default PATH, and the
// platform's own over both.
func environ(a manifold.Assignment, port int) []string {
	vars := map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin"}
	for k, v := range a.Env {
		vars[k] = v
	}
	vars["PORT"] = strconv.Itoa(port)
	vars["DYNO"] = a.Dyno
	if a.Release > 0 {
		vars["HEROKU_RELEASE_VERSION"] = "v" + strconv.Itoa(a.Release)
	}
	vars["HOME"] = appHome
	vars["PWD"] = appHome
	env := make([]string, 0, len(vars))
	for k, v := range vars {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}

// drawPort picks a dyno's $PORT. Each has its own address, so it need not be
// free. It differs from dyno to dyno so that nobody counts on a number, but
// each try of one has the same port, and the same address if that is still
// free: a router whose coordinator is away finds it there again.
func drawPort() int { return isolation.FirstPort + rand.IntN(isolation.LastPort-isolation.FirstPort+1) }

func addrPort(addr netip.Addr, port int) string {
	return netip.AddrPortFrom(addr, uint16(port)).String()
}

// Boot readiness is looked for often at first, since most apps are quick.
const (
	probeFirst = 20 * time.Millisecond
	probeLast  = 250 * time.Millisecond
)

// startProbe looks for a listener on $PORT until there is one, or the dyno
// moved on.
func (d *driver) startProbe(ctx context.Context) {
	if d.box == nil || d.probe != nil {
		return
	}
	probeCtx, cancel := context.WithCancel(ctx)
	d.probe = cancel
	b, run, port := d.box, d.rec.Dyno.Run, d.rec.Dyno.Port
	d.group.Go(func() {
		told := false
		for wait := probeFirst; ; wait = min(wait*5/4, probeLast) {
			ok, err := b.Listening(port)
			if ok {
				d.post(ctx, message{event: supervisor.Event{Kind: supervisor.Listening, Run: run}})
				return
			}
			if err != nil {
				d.log.Log(ctx, firstTime(&told), "cannot see whether a dyno listens", "run", run, "error", err)
			}
			if !sleep(probeCtx, wait) {
				return
			}
		}
	})
}

// runFile is a path in the run's own directory.
func (d *driver) runFile(run, name string) string {
	return filepath.Join(d.a.shelf.runDir(d.assignment.ID, run), name)
}
