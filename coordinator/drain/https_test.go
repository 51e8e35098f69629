package drain

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/logs"
)

func (r *rig) arrives(v *receiver, lines uint64) {
	r.Helper()
	r.eventually("the lines do not arrive", func() bool {
		got := v.got()
		return len(got) > 0 && number(got[len(got)-1]) == lines
	})
}

// Through restarts of the receiver and of us, nothing is lost and the order kept.
func TestHTTPS(t *testing.T) {
	cert, key, roots := certificate(t)
	pair, err := tls.X509KeyPair(cert, key)
	must(t, err)
	v := newReceiver(t, &tls.Config{Certificates: []tls.Certificate{pair}}, func(r *http.Request) int {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "secret" || r.URL.Path != "/in" {
			return 401
		}
		return 202
	})
	r := newRig(t, func(c *Config) { c.Roots = roots })
	r.hub.Write(r.app.ID, manifold.SourceApp, "web.1", "0 from before the drain")
	r.run()
	d := r.add("https://user:secret@" + v.addr + "/in")
	r.write(1000, "ünï x")
	r.arrives(v, 1000)
	form := regexp.MustCompile(`^<190>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00 host app web\.1 - 1 ünï x\n$`)
	if first := v.got()[0]; !form.MatchString(first) {
		t.Errorf("the first message is %q", first)
	}
	v.stop()
	r.write(1000, "")
	v.start()
	r.write(1000, "")
	r.arrives(v, 3000)
	r.stop()
	r.write(1000, "")
	r.run()
	r.write(1000, "")
	r.arrives(v, 5000)
	inOrder(t, v.got(), 1, 5001)
	_, err = r.store.RemoveDrain(t.Context(), r.app.ID, d.Token)
	must(t, err)
	r.add("http://127.0.0.1:1/") // the room has seen the removal, too, when it has seen this
	r.eventually("the place stays", func() bool { return !r.hasPlace(d.ID) })
	r.write(10, "")
	if got := v.got(); number(got[len(got)-1]) != 5000 {
		t.Errorf("a drain that was removed goes on: %q", got[len(got)-1])
	}
}

func (r *rig) hasPlace(id string) bool {
	_, err := http.Dir(r.cfg.Dir).Open(id)
	return err == nil
}

// A receiver that had a batch and could not say so knows it again.
func TestHTTPSameFrameAgain(t *testing.T) {
	var v *receiver
	tries := 0
	v = newReceiver(t, nil, nil)
	v.answer = func(*http.Request) int {
		if tries++; tries < 3 {
			return 503
		}
		return 200
	}
	r := newRig(t)
	r.run()
	r.add("http://" + v.addr)
	r.write(10, "")
	r.arrives(v, 10)
	inOrder(t, v.got(), 1, 11)
	if tries < 3 {
		t.Errorf("%d tries", tries)
	}
}

var told = regexp.MustCompile(`^<172>1 \S+ (\S+) heroku logplex - (?:- )?Error L10 \(output buffer overflow\): (\d+) messages dropped since \S+\.\n?$`)

// droppedOf is the sum of what L10 lines say.
func droppedOf(messages []string) (n int) {
	for _, m := range messages {
		if f := told.FindStringSubmatch(m); f != nil {
			var k int
			fmt.Sscan(f[2], &k)
			n += k
		}
	}
	return n
}

// A dead receiver costs the app and its other drain nothing, and when it is
// back learns exactly how many lines it did not get.
func TestDeadReceiver(t *testing.T) {
	dead, live := newReceiver(t, nil, nil), newReceiver(t, nil, nil)
	dead.stop()
	r := newRig(t)
	r.run()
	r.add("http://" + dead.addr)
	r.add("http://" + live.addr)
	const total = 60_000
	began := time.Now()
	for range total / 1000 {
		r.write(1000, strings.Repeat("x", 200))
		r.eventually("the other drain waits", func() bool { return uint64(live.count())+5000 > r.next })
	}
	took := time.Since(began)
	r.arrives(live, total)
	inOrder(t, live.got(), 1, total+1)
	dead.start()
	r.arrives(dead, total)
	got := dead.got()
	lines := 0
	for _, m := range got {
		if number(m) > 0 {
			lines++
		}
	}
	if dropped := droppedOf(got); dropped == 0 || lines+dropped != total {
		t.Errorf("%d lines came and %d were told as dropped, of %d", lines, dropped, total)
	}
	t.Logf("measured: %d lines written in %.1f s beside a dead drain", total, took.Seconds())
}

// A receiver that refuses a batch for good gets the next one.
func TestRefusedBatch(t *testing.T) {
	tries := 0
	v := newReceiver(t, nil, nil)
	v.answer = func(*http.Request) int {
		if tries++; tries <= refusals {
			return 400
		}
		return 200
	}
	r := newRig(t)
	r.run()
	r.add("http://" + v.addr)
	r.write(7, "")
	r.eventually("the batch is not given up", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return tries >= refusals
	})
	r.write(3, "")
	r.arrives(v, 10)
	got := v.got()
	if len(got) != 4 || droppedOf(got[:1]) != 7 {
		t.Errorf("%q", got)
	}
}

// Redirects lead nowhere, and a certificate nobody trusts gets no line.
func TestReceiverThatIsNone(t *testing.T) {
	cert, key, _ := certificate(t)
	pair, err := tls.X509KeyPair(cert, key)
	must(t, err)
	moved := 0
	forged := newReceiver(t, &tls.Config{Certificates: []tls.Certificate{pair}}, nil)
	away := newReceiver(t, nil, func(r *http.Request) int {
		if r.URL.Path != "/" {
			t.Errorf("a redirect was followed to %s", r.URL)
		}
		moved++
		return 307
	})
	r := newRig(t)
	r.run()
	r.add("https://" + forged.addr)
	r.add("http://" + away.addr + "/")
	r.write(5, "")
	r.logged("Error L14 (certificate validation): error=", `uri="https://`+forged.addr+`"`)
	r.eventually("nothing is sent", func() bool {
		away.mu.Lock()
		defer away.mu.Unlock()
		return moved > 0
	})
	if got := forged.got(); len(got) > 0 {
		t.Errorf("a receiver with a forged certificate got %q", got)
	}
}

// logged waits for a line of the app's log with all of words.
func (r *rig) logged(words ...string) {
	r.Helper()
	r.eventually("the log does not say "+strings.Join(words, "…"), func() bool {
		lines, err := r.hub.Recent(r.app.ID, logs.Filter{Source: manifold.SourceHeroku}, 100)
		must(r, err)
		for _, l := range lines {
			all := true
			for _, w := range words {
				all = all && strings.Contains(l.Text, w)
			}
			if all {
				return true
			}
		}
		return false
	})
}
