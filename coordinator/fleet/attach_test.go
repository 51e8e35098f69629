package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/attach"
)

// withClients has the rig's room let clients in, and returns a way to be one.
func (r *rig) withClients() (dial func(secret string) *tls.Conn) {
	r.t.Helper()
	cert, err := r.ca.Server("127.0.0.1")
	must(r.t, err)
	r.stop()
	r.attach = attach.New(attach.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Come: patience, Log: slog.New(slog.DiscardHandler)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.attach.Serve(ctx, ln) }()
	r.t.Cleanup(func() { cancel(); must(r.t, <-served) })
	r.serve()
	return func(secret string) *tls.Conn {
		r.t.Helper()
		conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: r.ca.Pool()})
		must(r.t, err)
		r.t.Cleanup(func() { conn.Close() })
		must(r.t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(conn, secret+"\r\n")
		must(r.t, err)
		return conn
	}
}

func TestAttach(t *testing.T) {
	r := newRig(t)
	dial := r.withClients()
	agent := r.join(manifold.RoleAgent)
	client := dial(r.attach.Open(attach.Session{ID: "run", Host: agent.id, Attach: manifold.Attach{Terminal: true, Rows: 4, Cols: 5}}))
	line, is, err := agent.Attach(t.Context(), "run")
	must(t, err)
	if is != (manifold.Attach{Terminal: true, Rows: 4, Cols: 5}) {
		t.Errorf("the client is %+v", is)
	}
	defer line.Close()
	must(t, manifold.WriteFrame(line, manifold.FrameStarted))
	buf := make([]byte, manifold.MaxFrame)
	n, err := client.Read(buf)
	if string(buf[:n]) != "rendezvous\r\n" || err != nil {
		t.Fatalf("the client got %q, %v", buf[:n], err)
	}
	_, err = io.WriteString(client, "input")
	must(t, err)
	kind, payload, err := manifold.ReadFrame(bufio.NewReader(line), buf)
	if kind != manifold.FrameData || string(payload) != "input" || err != nil {
		t.Errorf("the agent got %c %q, %v", kind, payload, err)
	}

	// A client that reads nothing holds back its own stream; the agent's other
	// requests pass.
	full := make(chan struct{})
	go func() {
		defer close(full)
		for range 10_000 {
			if manifold.WriteFrame(line, manifold.FrameData, buf...) != nil {
				return
			}
		}
	}()
	select {
	case <-full:
		t.Error("a client that reads nothing took 327 MB")
	case <-time.After(500 * time.Millisecond):
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, agent.Post(ctx, "/fleet/v1/observed", manifold.Observation{}))
	r.stop() // ends the session, too
	<-full
}

func TestAttachThatCannotBe(t *testing.T) {
	r := newRig(t)
	agent, other := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	r.attach.Open(attach.Session{ID: "run", Host: agent.id})
	refused := func(what string, err error, status int) {
		t.Helper()
		var got *manifold.StatusError
		if !errors.As(err, &got) || got.Status != status {
			t.Errorf("%s: %v, want status %d", what, err, status)
		}
	}
	_, _, err := other.Attach(t.Context(), "run")
	refused("another host's session", err, http.StatusNotFound)
	_, _, err = agent.Attach(t.Context(), "none")
	refused("no session", err, http.StatusNotFound)
	_, _, err = r.join(manifold.RoleRouter).Attach(t.Context(), "run")
	refused("a router", err, http.StatusForbidden)
	_, err = agent.Do(t.Context(), http.MethodPost, "/fleet/v1/attach/run", nil, nil)
	refused("no upgrade", err, http.StatusUpgradeRequired)
	r.attach.Open(attach.Session{ID: "late", Host: agent.id}) // the agent is there before that is over
	_, _, err = agent.Attach(t.Context(), "late")
	refused("no client", err, http.StatusGone)

	r.attach.Open(attach.Session{ID: "gone", Host: agent.id})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := agent.Attach(ctx, "gone"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an agent that gives up: %v", err)
	}
}

func TestDesiredNamesExecs(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	first, err := r.SetDesired(agent.id, manifold.Desired{})
	must(t, err)
	exec := manifold.Exec{ID: "e", Assignment: "a", Command: "bash", Env: map[string]string{"TERM": "xterm"}, Attach: manifold.Attach{Terminal: true, Rows: 3, Cols: 4}}
	second, err := r.SetDesired(agent.id, manifold.Desired{Execs: []manifold.Exec{exec}})
	must(t, err)
	if second <= first {
		t.Errorf("revision %d after %d", second, first)
	}
	if again, err := r.SetDesired(agent.id, manifold.Desired{Execs: []manifold.Exec{exec}}); err != nil || again != second {
		t.Errorf("the same again: revision %d, %v", again, err)
	}
	var got manifold.Desired
	lines := agent.stream(t, "/fleet/v1/desired")
	must(t, json.Unmarshal([]byte(next(t, lines)), &got))
	if len(got.Execs) != 1 || got.Execs[0].Command != "bash" || got.Execs[0].Attach != exec.Attach || got.Revision != second || got.Cluster == "" {
		t.Errorf("the agent got %+v", got)
	}
}
