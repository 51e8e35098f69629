package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"time"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/coordinator/outbound"
)

// outlet is a line to a receiver. It is for one goroutine.
type outlet interface {
	// send delivers lines, in bounded time. An error ends the outlet.
	send(lines []logs.Line) error
	// alive ends with the outlet, at the latest at the next send.
	alive() context.Context
	// settle is for how long it must live after a send for what was sent to be
	// taken as received. 0: send knows.
	settle() time.Duration
	// rest is how long to wait after a send for more lines to come together.
	rest() time.Duration
	close()
}

const (
	lastPause = time.Minute // between two tries
	refusals  = 3           // of one batch by an HTTP status; then it is dropped
	saveEvery = time.Second // a place
)

// drain is one drain at work.
type drain struct {
	manifold.Drain
	room *Room
	url  *url.URL

	place   logs.Place // all before it is delivered, or given up and counted
	ahead   logs.Place // all before it is sent; past it at turned, with settle
	turned  time.Time
	saved   uint64 // place.Next in the file
	savedAt time.Time
	batch   uint64 // last line of the batch that failed: it is sent again as it was
	refused int    // how often the receiver refused that
	dropped int    // lines of batches given up, which the receiver was not told yet
	since   time.Time
	trouble map[string]bool // what was complained of since a send went well
}

func newDrain(r *Room, d manifold.Drain) *drain {
	u, err := url.Parse(d.URL)
	if err != nil {
		u = &url.URL{} // the store takes none that cannot be read; it is complained of as a scheme
	}
	return &drain{Drain: d, room: r, url: u}
}

// run delivers until ctx ends or the app is gone.
func (d *drain) run(ctx context.Context) {
	if err := d.load(); err != nil {
		d.room.cfg.Log.Error("a log drain's place is lost; it begins anew", "app", d.App, "drain", d.ID, "err", err)
	}
	defer d.leave(ctx)
	for pause := d.room.cfg.Pause; ctx.Err() == nil; {
		from := d.place.Next
		err := d.deliver(ctx)
		if ctx.Err() != nil || errors.Is(err, errOver) {
			return
		}
		d.complain(err)
		if d.place.Next > from && d.dropped == 0 {
			pause = d.room.cfg.Pause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)/2):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastPause)
	}
}

func (d *drain) leave(ctx context.Context) {
	if errors.Is(context.Cause(ctx), errRemoved) {
		_ = d.room.root.Remove(d.ID) // else the next start does it
		return
	}
	d.save()
}

// errOver: there will be no more lines.
var errOver = errors.New("the app is gone, or the log hub")

// over tells the hub's ends from its other errors.
func over(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, logs.ErrForgotten) || errors.Is(err, logs.ErrClosed) {
		return errOver
	}
	return err
}

// deliver sends from the place on, until it cannot. It connects when there is
// something to send.
func (d *drain) deliver(ctx context.Context) error {
	tail, err := d.room.cfg.Logs.Drain(d.App, d.place)
	if err != nil {
		return over(err)
	}
	defer tail.Close()
	lines, err := tail.Next(ctx)
	if err != nil {
		return over(err)
	}
	out, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer out.close()
	d.ahead, d.turned = d.place, time.Now()
	for {
		for len(lines) > 0 {
			n := d.sameBatch(lines)
			if err := d.send(out, lines[:n]); err != nil {
				return err
			}
			lines = lines[n:]
		}
		if rest := out.rest(); rest > 0 {
			select {
			case <-time.After(rest):
			case <-out.alive().Done():
			}
		}
		if lines, err = d.next(ctx, out, tail); err != nil {
			return err
		}
	}
}

// sameBatch is how many lines are sent at once: all, but for a batch that
// failed, so that a receiver that had it can know it again.
func (d *drain) sameBatch(lines []logs.Line) int {
	n := 0
	for n < len(lines) && lines[n].ID <= d.batch {
		n++
	}
	if n == 0 {
		return len(lines)
	}
	return n
}

func (d *drain) send(out outlet, lines []logs.Line) error {
	last := lines[len(lines)-1]
	behind := logs.Place{Next: last.ID + 1, Since: last.Time}
	told := lines
	if d.dropped > 0 {
		told = append([]logs.Line{d.overflow(lines[0].ID)}, lines...)
	}
	err := out.send(told)
	var refusal *refusedError
	if errors.As(err, &refusal) {
		if d.refused++; d.refused >= refusals {
			if d.dropped == 0 {
				d.since = d.place.Since
			}
			d.dropped += len(lines)
			d.place, d.batch, d.refused = behind, 0, 0
			return err
		}
	}
	if err != nil {
		d.batch = last.ID
		return err
	}
	d.batch, d.refused, d.dropped = 0, 0, 0
	if len(d.trouble) > 0 {
		d.trouble = nil
		d.room.cfg.Log.Info("a log drain delivers again", "app", d.App, "drain", d.ID)
	}
	d.settle(out, behind)
	return nil
}

// settle moves the place on. What was sent into a connection is delivered if
// that still lives some time later: ahead is moved to where it was then.
//
//	      ahead              sent
//	place ──┴──────────────────┴──▶ lines
//	        one turn ago, at least
func (d *drain) settle(out outlet, sent logs.Place) {
	now := time.Now()
	switch wait := out.settle(); {
	case wait == 0:
		d.place = sent
	case now.Sub(d.turned) >= wait:
		d.place, d.ahead, d.turned = d.ahead, sent, now
	}
	if now.Sub(d.savedAt) >= saveEvery {
		d.save()
	}
}

// next waits for lines, and meanwhile settles those that were sent.
func (d *drain) next(ctx context.Context, out outlet, tail *logs.Tail) ([]logs.Line, error) {
	for {
		wait, cancel := out.alive(), context.CancelFunc(func() {})
		if d.place.Next < tail.Place().Next || d.saved != d.place.Next {
			wait, cancel = context.WithTimeout(wait, max(out.settle(), saveEvery))
		}
		lines, err := tail.Next(wait)
		cancel()
		switch {
		case err == nil:
			return lines, nil
		case ctx.Err() != nil: // we end, and the connection in order
			d.place = tail.Place()
			return nil, ctx.Err()
		case out.alive().Err() != nil:
			return nil, fmt.Errorf("the receiver hung up: %w", context.Cause(out.alive()))
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, over(err)
		}
		d.settle(out, tail.Place())
	}
}

func (d *drain) overflow(id uint64) logs.Line {
	return logs.Overflow(id, d.dropped, d.since)
}

// open connects to the receiver.
func (d *drain) open(ctx context.Context) (outlet, error) {
	switch d.url.Scheme {
	case "syslog", "syslog+tls":
		return d.dialSyslog(ctx)
	case "http", "https":
		return d.newPoster(ctx), nil
	}
	return nil, fmt.Errorf("a drain to %q is not known here", d.url.Scheme)
}

// complain says what is wrong, each thing once until it was right again: the
// operator all, the app's owner what only he can mend.
func (d *drain) complain(err error) {
	var request *url.Error // which names the URL
	if errors.As(err, &request) {
		err = request.Err
	}
	var forged *tls.CertificateVerificationError
	var forbidden *outbound.ForbiddenError
	what, text := "delivery", ""
	switch {
	case errors.As(err, &forged):
		what = "certificate"
		text = fmt.Sprintf("Error L14 (certificate validation): error=%q uri=%q", forged.Err.Error(), d.url.Scheme+"://"+d.url.Host)
	case errors.As(err, &forbidden):
		what = "address"
		text = fmt.Sprintf("Log drain %s is not served: %s", d.Token, forbidden)
	}
	if d.trouble[what] {
		return
	}
	if d.trouble == nil {
		d.trouble = map[string]bool{}
	}
	d.trouble[what] = true
	d.room.cfg.Log.Warn("a log drain cannot deliver; it tries again", "app", d.App, "drain", d.ID, "err", err)
	if text != "" {
		d.room.cfg.Logs.Write(d.App, manifold.SourceHeroku, "logplex", text)
	}
}
