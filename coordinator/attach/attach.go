// Package attach is where a user's terminal meets the process it is for:
// `heroku run`. A client brings the secret of a session, by the rendezvous
// protocol (rendezvous.go) or by HTTP on its way to SSH (ssh.go), both over
// TLS on one port; the host's agent joins the session from the other side; the
// room carries bytes between them until one of them is gone.
//
//	client                         room                            agent
//	                               Open: session, secret
//	  TLS, secret ──────────────▶  the secret is used up
//	                               Wait ◀────────────────────────  POST /fleet/v1/attach/{session}
//	                               Carry ────────────────────────▶ 101; starts the process
//	  ◀────────── "rendezvous\r\n"  ◀──────────────────────────── FrameStarted
//	  ◀═════════════ bytes ═══════▶ ◀═══════════════════════════▶ frames
//	  ◀───────────────── closed  ◀──────────────────────────────── FrameExit
//
// It must never start, stop or name a dyno, keep more of a stream than one
// read of it (ssh: its window, 2 MiB), or write what passes through it anywhere.
package attach

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"manifold"
)

// The errors of Wait.
var (
	// ErrNoSession: there is none by that id for that host, or it was joined.
	ErrNoSession = errors.New("there is no such session")
	// ErrNoClient: the client did not come in time, or has gone again (R13).
	ErrNoClient = errors.New("the session's client did not come")
)

// Config says what a room works with. Zero times are Heroku's.
type Config struct {
	TLS  *tls.Config   // for clients
	Come time.Duration // for a client to bring its secret; 30 s
	Join time.Duration // for the agent to join a client that came; 5 minutes
	Idle time.Duration // without a byte either way, then the client is sent away; 1 hour
	Log  *slog.Logger

	hold, brief, pause, linger time.Duration // endHold and its like; others in tests
}

// Room holds the sessions. They live in memory: a coordinator that ends takes
// them along, which is a lost client to every agent.
type Room struct {
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session
	secrets  map[[sha256.Size]byte]*session // those not used yet
	ssh      *ssh.ServerConfig
	work     sync.WaitGroup // goroutines of clients
}

// New makes a room; Serve lets clients in.
func New(cfg Config) *Room {
	orElse := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orElse(&cfg.Come, 30*time.Second)
	orElse(&cfg.Join, 5*time.Minute)
	orElse(&cfg.Idle, time.Hour)
	orElse(&cfg.hold, endHold)
	orElse(&cfg.brief, briefTime)
	orElse(&cfg.pause, pauseTime)
	orElse(&cfg.linger, lingerTime)
	// The CLI must find the line of the exit status in one piece: a small write
	// must not be spread over records.
	cfg.TLS = cfg.TLS.Clone()
	cfg.TLS.DynamicRecordSizingDisabled = true
	return &Room{cfg: cfg, sessions: map[string]*session{}, secrets: map[[sha256.Size]byte]*session{}, ssh: sshConfig()}
}

// Session is what Open is told of one.
type Session struct {
	ID     string          // unique: of an assignment or an exec
	Host   string          // that alone may join
	Attach manifold.Attach // what the client is, unless it says so itself when it comes
	// Over is called once, when the session has ended. It may be nil, and
	// must not call the room.
	Over func()
}

// Open begins a session and returns the secret by which a client proves to be
// the one it is for. The secret is good once and for Config.Come.
func (r *Room) Open(s Session) (secret string) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	secret = base64.RawURLEncoding.EncodeToString(raw)
	opened := &session{
		Session: s, room: r, secret: sha256.Sum256([]byte(secret)),
		came: make(chan struct{}), started: make(chan struct{}), over: make(chan struct{}),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s.ID], r.secrets[opened.secret] = opened, opened
	opened.timer = time.AfterFunc(r.cfg.Come, opened.end)
	return secret
}

// Cancel ends a session that no agent has joined: its process will not be.
func (r *Room) Cancel(id string) {
	r.mu.Lock()
	s := r.sessions[id]
	joined := s != nil && s.isJoined
	r.mu.Unlock()
	if s != nil && !joined {
		s.end()
	}
}

// Wait waits until the session's client is there. The agent that gets an
// answer has joined and calls Carry; there is no second one.
func (r *Room) Wait(ctx context.Context, id, host string) (*Line, error) {
	r.mu.Lock()
	s := r.sessions[id]
	if s == nil || s.Host != host || s.isWaited {
		r.mu.Unlock()
		return nil, ErrNoSession
	}
	s.isWaited = true
	r.mu.Unlock()
	select {
	case <-s.came:
	case <-s.over:
		return nil, ErrNoClient
	case <-ctx.Done():
		s.end()
		return nil, ctx.Err()
	}
	if !s.join() {
		return nil, ErrNoClient
	}
	return &Line{session: s}, nil
}

// claim trades a secret for its session, once.
func (r *Room) claim(secret string) *session {
	sum := sha256.Sum256([]byte(secret)) // looked up by its hash: no timing tells of a near miss
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.secrets[sum]
	delete(r.secrets, sum)
	return s
}

// maxStrangers bounds clients that have not shown a secret yet, strangerTime
// how long one may take.
const (
	maxStrangers = 256
	strangerTime = 10 * time.Second
)

// Serve lets clients in until ctx ends, then ends every session and waits for
// their goroutines.
func (r *Room) Serve(ctx context.Context, ln net.Listener) error {
	defer r.work.Wait()
	defer r.endAll()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	strangers := make(chan struct{}, maxStrangers)
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve terminals: %w", err)
		case err != nil: // descriptors are short, or the peer is gone again
			r.cfg.Log.Warn("could not accept a client", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case strangers <- struct{}{}:
			r.work.Go(func() { r.receive(ctx, conn, func() { <-strangers }) })
		default:
			conn.Close()
		}
	}
}

func (r *Room) endAll() {
	r.mu.Lock()
	all := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.end()
	}
}
