package fleet

import (
	"io"
	"time"

	"manifold"
)

// Server is the fleet's door. All methods may be called by any goroutine.
type Server struct{}

// Host is what the fleet knows of one host.
type Host struct {
	ID          string
	Live        bool                 // a stream is open, or it spoke within 15 s
	Seen        time.Time            // zero: not since this coordinator started
	Observation manifold.Observation // the last one, maybe from before a restart
}

// Router is what the fleet knows of one router.
type Router struct {
	ID       string
	Live     bool
	Acked    int64          // revision of the RouteTable it serves
	Draining map[string]int // run → requests open on dynos no longer in that table
}

// SetDesired says all that a host shall run from now on and returns the
// revision under which it is told. The same assignments again keep the
// revision.
func (s *Server) SetDesired(host string, assignments []manifold.Assignment) (int64, error) {
	return 0, nil
}

// SetRoutes says all that routers need from now on and returns its revision.
func (s *Server) SetRoutes(routes []manifold.Route) (int64, error) { return 0, nil }

// Hosts returns every host that spoke, by id.
func (s *Server) Hosts() map[string]Host { return nil }

// Routers returns every router that spoke since this coordinator started.
func (s *Server) Routers() []Router { return nil }

// Changed gives one token after any change in what hosts and routers say.
func (s *Server) Changed() <-chan struct{} { return nil }

// JobSpec is the coordinator's end of a job.
type JobSpec struct {
	Assignment string
	Host       string            // only this host may read and write it
	Outputs    []manifold.Output // what may be brought home
	Input      func(io.Writer) error
	Log        func(manifold.LogLine)
}

// Job is an open JobSpec.
type Job struct{}
