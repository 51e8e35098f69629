package attach

import (
	"crypto/sha256"
	"crypto/tls"
	"io"
	"time"
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
	inputEnded                           bool

	client *tls.Conn      // since it came
	agent  io.WriteCloser // since it joined
	timer  *time.Timer    // ends it: nobody comes, nobody joins, nothing moves
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

// come is the client's step. It and the others are false when the session is
// over.
func (s *session) come(client *tls.Conn) bool {
	return s.step(func() {
		s.client = client
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

// finish has pump close the connection in order, so that the client gets all
// that was written: to close over input that nobody read would reset it.
func (s *session) finish() {
	s.step(func() {
		s.isEnding = true
		s.timer.Reset(lingerTime)
		wait := endHold
		if s.Terminal || s.inputEnded {
			wait = 0
		}
		_ = s.client.SetReadDeadline(time.Now().Add(wait))
	})
}

// until sets the time to which a read may wait, zero is for ever; finish has
// the last word.
func (s *session) until(t time.Time) {
	s.step(func() {
		if !s.isEnding {
			_ = s.client.SetReadDeadline(t)
		}
	})
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
