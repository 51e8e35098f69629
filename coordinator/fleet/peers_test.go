package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
)

func TestDesiredIsToldAtEachChange(t *testing.T) {
	r := newRig(t)
	agent, other := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	lines := agent.stream(t, "/fleet/v1/desired")
	eventually(t, "the host is live", func() bool { return r.Hosts()[agent.id].Live })
	first, err := r.SetDesired(agent.id, manifold.Desired{Assignments: []manifold.Assignment{{ID: "a", Env: map[string]string{"K": "V"}}}})
	must(t, err)
	var got manifold.Desired
	must(t, json.Unmarshal([]byte(next(t, lines)), &got))
	if got.Cluster != r.store.Cluster() || got.Revision != first || len(got.Assignments) != 1 || got.Assignments[0].Env["K"] != "V" {
		t.Fatalf("told %+v", got)
	}
	again, err := r.SetDesired(agent.id, manifold.Desired{Assignments: got.Assignments})
	must(t, err)
	_, err = r.SetDesired(other.id, manifold.Desired{})
	must(t, err)
	last, err := r.SetDesired(agent.id, manifold.Desired{})
	must(t, err)
	if again != first || last <= first {
		t.Fatalf("revisions %d, same again %d, changed %d", first, again, last)
	}
	if line := next(t, lines); !strings.Contains(line, `"assignments":[]`) {
		t.Fatalf("told %s, want nothing to run, and that once", line)
	}
}

func TestNothingIsToldBeforeItIsSet(t *testing.T) {
	r := newRig(t)
	router := r.join(manifold.RoleRouter)
	lines := router.stream(t, "/fleet/v1/routes")
	eventually(t, "the router is live", func() bool { return len(r.Routers()) == 1 && r.Routers()[0].Live })
	select {
	case line := <-lines:
		t.Fatalf("told %s before anything was set", line)
	case <-time.After(100 * time.Millisecond): // long after the stream's first byte
	}
	_, err := r.SetRoutes([]manifold.Route{{App: "a"}})
	must(t, err)
	if line := next(t, lines); !strings.Contains(line, `"app":"a"`) {
		t.Fatalf("told %s", line)
	}
}

// A reader that takes nothing must cost one version, not all of them.
func TestSlowReaderGetsTheNewestOnly(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	release, count, last := make(chan struct{}), 0, make(chan int, 1)
	go func() {
		_ = agent.Stream(t.Context(), "/fleet/v1/desired", func(line []byte) error {
			<-release
			count++
			if strings.Contains(string(line), `"id":"final"`) {
				last <- count
				return fmt.Errorf("enough")
			}
			return nil
		})
	}()
	eventually(t, "the host is live", func() bool { return r.Hosts()[agent.id].Live })
	ballast := strings.Repeat("x", 256<<10) // together more than the buffers in between hold
	const versions = 60
	for i := range versions {
		_, err := r.SetDesired(agent.id, manifold.Desired{Assignments: []manifold.Assignment{{ID: fmt.Sprint(i), Command: ballast}}})
		must(t, err)
	}
	_, err := r.SetDesired(agent.id, manifold.Desired{Assignments: []manifold.Assignment{{ID: "final"}}})
	must(t, err)
	close(release)
	if n := next(t, last); n > versions/2 {
		t.Fatalf("a slow reader got %d of %d versions", n, versions)
	}
}

func TestDesiredThatDoesNotFitIsRefused(t *testing.T) {
	r := newRig(t)
	tell := func() error {
		_, err := r.SetDesired(uuid.NewString(), manifold.Desired{Assignments: []manifold.Assignment{{Command: strings.Repeat("x", 1<<20)}}})
		return err
	}
	must(t, tell())
	if r.maxValue = 1 << 20; tell() == nil {
		t.Fatal("a message no reader can take was accepted")
	}
}

func TestObservation(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	drain(r.Changed())
	said := manifold.Observation{Host: "another host", Revision: 7, Dynos: []manifold.Dyno{{Assignment: "a", State: manifold.StateUp}}}
	must(t, agent.Post(t.Context(), "/fleet/v1/observed", said))
	next(t, r.Changed())
	h := r.Hosts()[agent.id]
	if !h.Live || h.Seen.IsZero() || h.Observation.Host != agent.id || h.Observation.Dynos[0].State != manifold.StateUp {
		t.Fatalf("host is %+v", h)
	}
	if len(r.Hosts()) != 1 {
		t.Fatalf("hosts are %+v: the body was believed", r.Hosts())
	}
	must(t, agent.Post(t.Context(), "/fleet/v1/observed", said)) // the same again is no news
	select {
	case <-r.Changed():
		t.Fatal("a repeated observation was taken for a change")
	default:
	}
	r.stop()
	r.serve()
	h = r.Hosts()[agent.id]
	if h.Live || !h.Seen.IsZero() || len(h.Observation.Dynos) != 1 {
		t.Fatalf("after a restart the host is %+v, want its last observation, unseen", h)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	for _, path := range []string{"/fleet/v1/observed", "/fleet/v1/logs"} {
		_, err := agent.Do(t.Context(), http.MethodPost, path, strings.NewReader("{"), nil)
		if status(err) != http.StatusBadRequest {
			t.Errorf("%s took garbage: %v", path, err)
		}
		_, err = agent.Do(t.Context(), http.MethodPost, path, strings.NewReader(strings.Repeat(" ", manifold.MaxWireBody+1)), nil)
		if status(err) != http.StatusRequestEntityTooLarge {
			t.Errorf("%s took a body without bound: %v", path, err)
		}
	}
	if !r.Hosts()[agent.id].Seen.IsZero() {
		t.Error("a host that said nothing that can be read is taken for one that said what it runs")
	}
	if err := os.WriteFile(filepath.Join(r.dir, "fleet", uuid.NewString()+".json"), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.serve() // a half-written observation does not keep the door shut
	if len(r.Hosts()) != 0 {
		t.Fatalf("hosts are %+v", r.Hosts())
	}
}

func TestRouterAck(t *testing.T) {
	r := newRig(t)
	router := r.join(manifold.RoleRouter)
	must(t, router.Post(t.Context(), "/fleet/v1/routes/ack", manifold.RouteAck{Revision: 5, Draining: map[string]int{"run": 2}}))
	got := r.Routers()
	if len(got) != 1 || got[0].ID != router.id || !got[0].Live || got[0].Acked != 5 || got[0].Draining["run"] != 2 {
		t.Fatalf("routers are %+v", got)
	}
}

// An agent refuses a revision below one it knows, so ours must stay above
// what any peer has heard, even when the clock went back since.
func TestRevisionsStayAboveWhatPeersKnow(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	ahead := time.Now().Add(48 * time.Hour).UnixNano()
	must(t, agent.Post(t.Context(), "/fleet/v1/observed", manifold.Observation{Revision: ahead}))
	got, err := r.SetDesired(agent.id, manifold.Desired{})
	must(t, err)
	if got <= ahead {
		t.Fatalf("revision %d after a peer knew %d", got, ahead)
	}
	must(t, agent.Post(t.Context(), "/fleet/v1/observed", manifold.Observation{Revision: 1<<63 - 1}))
	if got, err = r.SetDesired(agent.id, manifold.Desired{Assignments: []manifold.Assignment{{ID: "a"}}}); err != nil || got < 0 {
		t.Fatalf("a hostile revision broke ours: %d, %v", got, err)
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}
