package scheduler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// buildJob is a job with one file output.
func buildJob(app manifold.App) Job {
	return Job{
		Assignment: manifold.Assignment{
			App: app.ID, AppName: app.Name, Dyno: "build.1", Size: manifold.BuildSize, Command: "build", TTL: time.Minute,
			Job: &manifold.Job{Outputs: []manifold.Output{{Name: "result.json", Path: "/tmp/result.json", Limit: 1000}}},
		},
		Input: func(w io.Writer) error {
			_, err := io.WriteString(w, "the source")
			return err
		},
	}
}

type outcome struct {
	result JobResult
	err    error
}

// run starts a job and returns when its host has it.
func (r *rig) run(ctx context.Context, a *agent, j Job) (id string, ended <-chan outcome) {
	r.t.Helper()
	c := make(chan outcome, 1)
	go func() {
		result, err := r.sched.RunJob(ctx, j)
		c <- outcome{result, err}
	}()
	return a.one(j.Assignment.Dyno), c
}

// finish does what an agent does at a job's end: input, lines, outputs, and
// then the word that it is complete.
func (a *agent) finish(id string, exit int, lines ...string) (input string) {
	a.r.t.Helper()
	t, link := a.r.t, a.line()
	res, err := link.Do(t.Context(), http.MethodGet, "/fleet/v1/jobs/"+id+"/input", nil, nil)
	must(t, err)
	text, err := io.ReadAll(res.Body)
	must(t, errors.Join(err, res.Body.Close()))
	out := []byte(`{"ok":true}`)
	sum := sha256.Sum256(out)
	res, err = link.Do(t.Context(), http.MethodPut, "/fleet/v1/jobs/"+id+"/outputs/result.json", bytes.NewReader(out),
		http.Header{"X-Manifold-Digest": {"sha256:" + hex.EncodeToString(sum[:])}})
	must(t, err)
	must(t, res.Body.Close())
	a.set(func(d *manifold.Dyno) {
		if d.Assignment == id {
			d.State, d.OutputSeq = manifold.StateComplete, uint64(len(lines))
			d.Result = &manifold.Result{Cause: manifold.CauseExit, Status: exit, At: time.Now()}
		}
	})
	stream := manifold.LogStream{ID: "run-" + id + "/app", App: uuid.NewString(), Assignment: id, Source: manifold.SourceApp, Process: "build.1"}
	for i, line := range lines { // the last lines come after the word
		stream.Lines = append(stream.Lines, manifold.LogLine{Seq: uint64(i + 1), Time: time.Now(), Text: line})
	}
	must(t, link.Post(t.Context(), "/fleet/v1/logs", manifold.LogBatch{Streams: []manifold.LogStream{stream}}))
	return string(text)
}

func (a *agent) line() *manifold.Link {
	a.r.t.Helper()
	link, err := manifold.NewLink(a.r.address(), a.id)
	must(a.r.t, err)
	return link
}

func wait(t *testing.T, c <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-c:
		return o
	case <-time.After(patience):
		t.Fatal("the job did not end")
		panic("not reached")
	}
}

func TestRunJob(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent()
	app := r.app(types)
	var lines []string
	j := buildJob(app)
	j.Log = func(l manifold.LogLine) { lines = append(lines, l.Text) }
	id, ended := r.run(t.Context(), agent, j)
	for _, d := range r.sched.Dynos(app.ID) {
		if d.Assignment == id {
			t.Errorf("ps shows a build: %+v", d)
		}
	}
	if input := agent.finish(id, 3, "-----> Go app detected", "-----> Failed"); input != "the source" {
		t.Errorf("input is %q", input)
	}
	o := wait(t, ended)
	must(t, o.err)
	if o.result.Result.Status != 3 || strings.Join(lines, "|") != "-----> Go app detected|-----> Failed" {
		t.Errorf("result %+v, lines %q", o.result.Result, lines)
	}
	path := o.result.Outputs["result.json"].Path
	if text, err := os.ReadFile(path); err != nil || string(text) != `{"ok":true}` {
		t.Errorf("result.json is %q, %v", text, err)
	}
	must(t, o.result.Discard())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Discard left %s: %v", path, err)
	}
	eventually(t, "its placement is gone and its host told", func() bool { return r.phase(id) == "gone" && !agent.runs(id) })
}

func TestJobsEarlyEnds(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent()
	app := r.app(types)
	for _, c := range []struct {
		name string
		end  func(cancel context.CancelFunc)
		want string
	}{
		{"cancelled", func(cancel context.CancelFunc) { cancel() }, "canceled"},
		{"app deleted", func(context.CancelFunc) { must(t, r.store.DeleteApp(t.Context(), app.ID)) }, "app was deleted"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		id, ended := r.run(ctx, agent, buildJob(app))
		c.end(cancel)
		if o := wait(t, ended); o.err == nil || !strings.Contains(o.err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, o.err, c.want)
		}
		eventually(t, c.name+": it is stopped and gone", func() bool { return r.phase(id) == "gone" && !agent.runs(id) })
		cancel()
	}
}

func TestOrphanJobIsRemovedAtStart(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent()
	app := r.app(types)
	web := agent.one("web.1")
	ctx, die := context.WithCancel(t.Context())
	id, ended := r.run(ctx, agent, buildJob(app))
	r.halt() // a coordinator that dies does not tidy up
	r.start()
	eventually(t, "the orphan is stopped and gone", func() bool { return r.phase(id) == "gone" && !agent.runs(id) })
	if agent.one("web.1") != web {
		t.Error("another dyno was touched")
	}
	die()
	wait(t, ended)
}

func TestJobWithoutHost(t *testing.T) {
	r := newRig(t)
	r.set.StartGrace = 10 * time.Millisecond
	r.start()
	app := r.app(types)
	r.sched.hostWait = 100 * time.Millisecond
	if _, err := r.sched.RunJob(t.Context(), buildJob(app)); !errors.Is(err, ErrNoHost) {
		t.Errorf("got %v, want ErrNoHost", err)
	}
}
