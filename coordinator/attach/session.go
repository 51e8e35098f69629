package attach

import (
	"crypto/sha256"
	"io"
	"sync"
	"time"

	"manifold"
)

// session is one client and one process. Its steps, each of which may come
// only once and in this order:
//
//	opened ──secret──▶ came ──agent──▶ joined ──▶ started ──FrameExit──▶ ending ──▶ over
//	   └─ Come ───────────└─ Join ────────└─ Idle ────└─ Idle ─────────────└─ lingerTime ─▲
//
// Its timer takes it to over when a step takes too long; so does the loss of
// either end.
type session struct {
	Session
	room   *Room
	secret [sha256.Size]byte

	came, started, over chan struct{} // closed when that has happened

	// Guarded by the room's lock.
	isWaited, isJoined, isEnding, isOver bool

	client client         // since it came
	agent  io.WriteCloser // since it joined
	timer  *time.Timer    // ends it: nobody comes, nobody joins, nothing moves

	toAgent sync.Mutex // one frame at a time
}

// end ends the session, whatever step it is at. What is attached is let go of.
func (s *session) end() {
	r := s.room
	r.mu.Lock()
	if s.isOver {
		r.mu.Unlock()
		return
	}
	s.isOver = true
	s.timer.Stop()
	delete(r.secrets, s.secret)
	if r.sessions[s.ID] == s {
		delete(r.sessions, s.ID)
	}
	client, agent := s.client, s.agent
	close(s.over)
	r.mu.Unlock()
	if client != nil {
		client.Close() // unblocks whoever reads or writes it
	}
	if agent != nil {
		agent.Close()
	}
	if s.Over != nil {
		s.Over()
	}
}

// come is the client's step; it knows best what it is. This step and the others
// are false when the session is over.
func (s *session) come(client client, attach manifold.Attach) bool {
	return s.step(func() {
		s.client, s.Attach = client, attach
		s.timer.Reset(s.room.cfg.Join)
		close(s.came)
	})
}

// join is the agent's step.
func (s *session) join() bool {
	return s.step(func() {
		s.isJoined = true
		s.timer.Reset(s.room.cfg.Idle)
	})
}

// start lets the client's input flow to the agent.
func (s *session) start(agent io.WriteCloser) bool {
	return s.step(func() {
		if s.agent == nil {
			s.agent = agent
		}
	})
}

// move puts the idle limit off.
func (s *session) move() bool {
	return s.step(func() {
		if !s.isEnding {
			s.timer.Reset(s.room.cfg.Idle)
		}
	})
}

// finish has the client end in order, within lingerTime.
func (s *session) finish(status int) {
	if s.step(func() { s.isEnding = true; s.timer.Reset(s.room.cfg.linger) }) {
		s.client.finish(status)
	}
}

func (s *session) ending() (ending bool) {
	s.step(func() { ending = s.isEnding })
	return ending
}

func (s *session) step(do func()) bool {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if !s.isOver {
		do()
	}
	return !s.isOver
}
