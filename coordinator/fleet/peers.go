package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// Host is what the fleet knows of one host.
type Host struct {
	ID          string
	Live        bool                 // a stream is open, or it spoke within 15 s
	Seen        time.Time            // of its last observation; zero: not since this coordinator started
	Observation manifold.Observation // the last one, maybe from before a restart
}

// Router is what the fleet knows of one router.
type Router struct {
	ID       string
	Live     bool
	Acked    int64          // revision of the RouteTable it serves
	Draining map[string]int // run → requests open on dynos no longer in that table
	Failing  map[string]int // run → requests in a row a dyno in it did not answer
}

// presence says whether a peer is there. Server.mu guards it.
type presence struct {
	streams int
	seen    time.Time
}

func (p *presence) live(now time.Time) bool { return p.streams > 0 || now.Sub(p.seen) < liveFor }

type host struct {
	presence
	desired  *cell
	observed time.Time
	raw      []byte // body of the last observation
	last     manifold.Observation
}

type router struct {
	presence
	raw []byte
	ack manifold.RouteAck
}

// host finds or makes a host's entry. The caller holds mu.
func (s *Server) host(id string) *host {
	h := s.hosts[id]
	if h == nil {
		h = &host{desired: newCell()}
		s.hosts[id] = h
	}
	return h
}

// router finds or makes a router's entry. The caller holds mu.
func (s *Server) router(id string) *router {
	r := s.routers[id]
	if r == nil {
		r = &router{}
		s.routers[id] = r
	}
	return r
}

// Hosts returns every host that ever spoke, by id.
func (s *Server) Hosts() map[string]Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, all := time.Now(), make(map[string]Host, len(s.hosts))
	for id, h := range s.hosts {
		all[id] = Host{ID: id, Live: h.live(now), Seen: h.observed, Observation: h.last}
	}
	return all
}

// Routers returns every router that spoke since this coordinator started.
func (s *Server) Routers() []Router {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, all := time.Now(), make([]Router, 0, len(s.routers))
	for id, r := range s.routers {
		all = append(all, Router{ID: id, Live: r.live(now), Acked: r.ack.Revision, Draining: r.ack.Draining, Failing: r.ack.Failing})
	}
	return all
}

// SetDesired says all that a host shall run from now on and returns the
// revision under which it is told; Cluster and Revision are not the caller's.
// The same again keeps the revision. It fails when it does not fit into one
// message.
func (s *Server) SetDesired(id string, d manifold.Desired) (int64, error) {
	if d.Assignments == nil {
		d.Assignments = []manifold.Assignment{}
	}
	body, err := s.encode(struct { // as the end of manifold.Desired
		Assignments []manifold.Assignment `json:"assignments"`
		Execs       []manifold.Exec       `json:"execs,omitempty"`
		Cycling     []string              `json:"cycling,omitempty"`
	}{d.Assignments, d.Execs, d.Cycling})
	if err != nil {
		return 0, fmt.Errorf("tell host %s what to run: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host(id).desired.set(body, s.nextRevision, func(revision int64) ([]byte, error) {
		head, err := json.Marshal(struct {
			Cluster  string `json:"cluster"`
			Revision int64  `json:"revision"`
		}{s.cfg.Cluster, revision})
		if err != nil {
			return nil, err
		}
		head[len(head)-1] = ','
		return append(head, body[1:]...), nil // one object; what was encoded is not encoded again
	})
}

// SetRoutes says all that routers need from now on and returns its revision.
// The same routes again keep it.
func (s *Server) SetRoutes(routes []manifold.Route) (int64, error) {
	if routes == nil {
		routes = []manifold.Route{}
	}
	body, err := s.encode(routes)
	if err != nil {
		return 0, fmt.Errorf("tell routers the routes: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routes.set(body, s.nextRevision, func(revision int64) ([]byte, error) {
		return json.Marshal(struct { // as manifold.RouteTable
			Cluster  string          `json:"cluster"`
			Revision int64           `json:"revision"`
			Routes   json.RawMessage `json:"routes"`
		}{s.cfg.Cluster, revision, body})
	})
}

func (s *Server) encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err == nil && len(body) > s.maxValue {
		err = fmt.Errorf("%d bytes are more than one message may hold (%d)", len(body), s.maxValue)
	}
	return body, err
}

func (s *Server) streamDesired(w http.ResponseWriter, r *http.Request, id string) error {
	s.mu.Lock()
	h := s.host(id)
	s.mu.Unlock()
	s.attend(&h.presence, func() { h.desired.stream(w, r, s.done) })
	return nil
}

func (s *Server) streamRoutes(w http.ResponseWriter, r *http.Request, id string) error {
	s.mu.Lock()
	p := &s.router(id).presence
	s.mu.Unlock()
	s.attend(p, func() { s.routes.stream(w, r, s.done) })
	return nil
}

// attend counts a stream as open while it runs.
func (s *Server) attend(p *presence, stream func()) {
	count := func(n int) {
		s.mu.Lock()
		p.streams += n
		p.seen = time.Now()
		s.mu.Unlock()
		s.notice()
	}
	count(1)
	defer count(-1)
	stream()
}

// takeObserved keeps what a host runs. The same body again only shows that
// the host is there.
func (s *Server) takeObserved(w http.ResponseWriter, r *http.Request, id string) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, manifold.MaxWireBody))
	if err != nil {
		return err
	}
	s.mu.Lock()
	h := s.host(id)
	h.seen = time.Now()
	same := !h.observed.IsZero() && bytes.Equal(body, h.raw)
	if same {
		h.observed = h.seen
	}
	s.mu.Unlock()
	if same {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	obs, err := parseObservation(id, body)
	if err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "the body is not an observation: %v", err)
	}
	s.mu.Lock()
	h.raw, h.last, h.observed = body, obs, time.Now() // at once: who sees the one acts on the other
	s.heard(obs.Revision)
	s.mu.Unlock()
	s.remember(id)
	s.notice()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func parseObservation(id string, body []byte) (manifold.Observation, error) {
	var obs manifold.Observation
	err := json.Unmarshal(body, &obs)
	obs.Host = id // whatever it says: the certificate counts
	return obs, err
}

func (s *Server) takeAck(w http.ResponseWriter, r *http.Request, id string) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, manifold.MaxWireBody))
	if err != nil {
		return err
	}
	var ack manifold.RouteAck
	if err := json.Unmarshal(body, &ack); err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "the body is not an acknowledgement: %v", err)
	}
	s.mu.Lock()
	rt := s.router(id)
	rt.seen = time.Now()
	changed := !bytes.Equal(body, rt.raw)
	rt.raw = body
	rt.ack = manifold.RouteAck{Revision: ack.Revision, Draining: ack.Draining, Failing: ack.Failing}
	s.heard(ack.Revision)
	s.mu.Unlock()
	if changed {
		s.notice()
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// remember keeps an observation on disk: after a restart of the coordinator, a
// host that is silent for a while is then still known to run what it ran. It
// is a hint, so it is not synced.
func (s *Server) remember(id string) {
	s.disk.Lock() // the newest is written last
	defer s.disk.Unlock()
	s.mu.Lock()
	body := s.host(id).raw
	s.mu.Unlock()
	name := id + ".json"
	err := s.observed.WriteFile(name+".part", body, 0o600)
	if err == nil {
		err = s.observed.Rename(name+".part", name)
	}
	if err != nil {
		s.cfg.Log.Warn("could not keep an observation on disk", "host", id, "err", err)
	}
}

// recall reads what remember kept.
func (s *Server) recall() {
	names, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*.json"))
	if err != nil {
		return // a pattern of ours does not fail
	}
	for _, path := range names {
		id := strings.TrimSuffix(filepath.Base(path), ".json")
		body, err := s.observed.ReadFile(filepath.Base(path))
		if err != nil || uuid.Validate(id) != nil {
			continue
		}
		if obs, err := parseObservation(id, body); err == nil {
			s.host(id).last = obs
			s.heard(obs.Revision)
		}
	}
}
