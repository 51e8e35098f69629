package router

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"manifold"
)

// TestQueueIsBounded: with the coordinator away lines are dropped, not kept
// for ever, and their numbers are left out, so that the count is known. One
// app's flood leaves room for others.
func TestQueueIsBounded(t *testing.T) {
	s := newShipper(slog.New(slog.DiscardHandler))
	now := time.Now()
	const lines = 100_000
	for range lines {
		s.add("flood", now, strings.Repeat("<", 400))
	}
	s.add("quiet", now, "one")
	if s.queued > maxQueued || s.streams["flood"].cost > maxQueuedOfApp || len(s.streams["quiet"].lines) != 1 {
		t.Fatalf("%d bytes, %d of the flood, %d lines of the other", s.queued, s.streams["flood"].cost, len(s.streams["quiet"].lines))
	}
	got := map[string]int{}
	for s.waiting() {
		batch := s.batch("router")
		if body, err := json.Marshal(batch); err != nil || len(body) > manifold.MaxWireBody {
			t.Fatal(len(body), err)
		}
		for _, st := range batch.Streams {
			got[st.App] += len(st.Lines)
		}
		s.sent(batch)
	}
	s.add("flood", now, "after")
	last := s.batch("router").Streams[0]
	if last.Lines[0].Seq != lines+1 || got["flood"] < 1000 || got["quiet"] != 1 || s.queued != cost(last.Lines[0]) {
		t.Fatalf("%v, then %v, %d queued", got, last, s.queued)
	}
}

func BenchmarkLogLine(b *testing.B) {
	r := newRig(b, nil)
	r.routes(nil, "127.0.0.1:1")
	x := exchange{srv: r.srv, client: &client{proto: "http"}, start: time.Now(), id: strings.Repeat("x", 36), fwd: "127.0.0.1", dynoName: "web.1", service: time.Now()}
	x.req = &x.client.req
	x.req.Method, x.req.Target, x.req.Host = "GET", "/path?query", appHost
	x.route = r.srv.tables.current.Load().find(appHost)
	b.ReportAllocs()
	for b.Loop() {
		r.srv.log(&x, nil)
		if r.srv.ship.queued > maxQueuedOfApp/2 {
			r.srv.ship.sent(r.srv.ship.batch("r"))
		}
	}
}
