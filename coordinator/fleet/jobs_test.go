package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/logs"
)

// openJob opens a job with a file and an image output.
func (r *rig) openJob(host string, spec JobSpec) (*Job, string) {
	r.t.Helper()
	spec.Assignment, spec.Host = uuid.NewString(), host
	spec.Outputs = []manifold.Output{{Name: "result.json", Limit: 100}, {Name: "slug", Image: true, Limit: 1 << 20}}
	j, err := r.OpenJob(spec)
	must(r.t, err)
	return j, "/fleet/v1/jobs/" + spec.Assignment
}

func (p peer) put(t *testing.T, path, body, digest string) int {
	t.Helper()
	res, err := p.Do(t.Context(), http.MethodPut, path, strings.NewReader(body), http.Header{"X-Manifold-Digest": {digest}})
	if err != nil {
		return status(err)
	}
	must(t, res.Body.Close())
	return res.StatusCode
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestJobInput(t *testing.T) {
	r := newRig(t)
	agent, thief := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	started, release := make(chan struct{}, 1), make(chan struct{})
	j, path := r.openJob(agent.id, JobSpec{Input: func(w io.Writer) error {
		started <- struct{}{}
		<-release
		_, err := io.WriteString(w, "the source")
		return err
	}})
	if got, _ := thief.get(t, path+"/input"); got != 404 {
		t.Fatalf("another host reads the input: %d", got)
	}
	first := make(chan string, 1)
	go func() {
		_, body := agent.get(t, path+"/input")
		first <- body
	}()
	next(t, started)
	if got, _ := agent.get(t, path+"/input"); got != 503 {
		t.Errorf("a second reader at the same time got %d, want 503", got)
	}
	close(release)
	if body := next(t, first); body != "the source" {
		t.Errorf("input is %q", body)
	}
	if got, body := agent.get(t, path+"/input"); got != 200 || body != "the source" {
		t.Errorf("reading anew gave %d %q", got, body)
	}
	r.CloseJob(j)
	if got, _ := agent.get(t, path+"/input"); got != 404 {
		t.Errorf("a closed job still has input: %d", got)
	}
}

func TestHalfAnInputIsNotTakenForAWhole(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	j, path := r.openJob(agent.id, JobSpec{Input: func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("x", 100_000))
		return errors.Join(err, errors.New("git broke off"))
	}})
	defer r.CloseJob(j)
	if got, text := agent.get(t, path+"/input"); got != 0 {
		t.Fatalf("got %d and %d bytes without an error", got, len(text))
	}
}

func TestJobOutputs(t *testing.T) {
	r := newRig(t)
	agent, thief := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	j, path := r.openJob(agent.id, JobSpec{})
	long := strings.Repeat("x", 101)
	for _, c := range []struct {
		name       string
		who        peer
		path, body string
		digest     string
		want       int
	}{
		{"another host", thief, "/outputs/result.json", "{}", digestOf("{}"), 404},
		{"no digest", agent, "/outputs/result.json", "{}", "", 400},
		{"garbage for a digest", agent, "/outputs/result.json", "{}", "sha256:../../etc/passwd", 400},
		{"wrong digest", agent, "/outputs/result.json", "{}", digestOf("[]"), 422},
		{"too long", agent, "/outputs/result.json", long, digestOf(long), 413},
		{"unknown name", agent, "/outputs/other", "{}", digestOf("{}"), 404},
		{"name that climbs", agent, "/outputs/..%2f..%2fresult.json", "{}", digestOf("{}"), 404},
		{"a temporary's name", agent, "/outputs/result.json.part", "{}", digestOf("{}"), 404},
		{"image with a wrong digest", agent, "/outputs/slug", "bytes", digestOf("other"), 422},
		{"good file", agent, "/outputs/result.json", `{"ok":1}`, digestOf(`{"ok":1}`), 204},
		{"the same again", agent, "/outputs/result.json", `{"ok":1}`, digestOf(`{"ok":1}`), 204},
		{"a bad one does not spoil the good", agent, "/outputs/result.json", "{}", digestOf("[]"), 422},
		{"good image", agent, "/outputs/slug", "bytes", digestOf("bytes"), 204},
	} {
		if got := c.who.put(t, path+c.path, c.body, c.digest); got != c.want {
			t.Errorf("%s: answered %d, want %d", c.name, got, c.want)
		}
	}
	outputs, dir := r.CloseJob(j)
	text, err := os.ReadFile(outputs["result.json"].Path)
	must(t, err)
	if string(text) != `{"ok":1}` || filepath.Dir(outputs["result.json"].Path) != dir {
		t.Errorf("result.json is %q in %s", text, outputs["result.json"].Path)
	}
	if img := outputs["slug"].Image; img.Digest != digestOf("bytes") || img.Bytes != 5 || !r.images.Has(img) {
		t.Errorf("slug is %+v", img)
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 1 || len(outputs) != 2 {
		t.Errorf("left in the directory: %v, outputs %v", left, outputs)
	}
}

func TestOutputsNeedNamesAndLimits(t *testing.T) {
	r := newRig(t)
	for _, out := range []manifold.Output{{Name: "../x", Limit: 1}, {Name: "a/b", Limit: 1}, {Name: "", Limit: 1}, {Name: "x.part", Limit: 1}, {Name: "x"}} {
		if _, err := r.OpenJob(JobSpec{Assignment: uuid.NewString(), Outputs: []manifold.Output{out}}); err == nil {
			t.Errorf("output %+v was accepted", out)
		}
	}
}

func TestLogsGoToTheirJobOrToTheHub(t *testing.T) {
	r := newRig(t)
	agent, thief := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	app := uuid.NewString()
	var got []string
	j, _ := r.openJob(agent.id, JobSpec{Log: func(l manifold.LogLine) { got = append(got, l.Text) }})
	lines := func(texts ...string) (all []manifold.LogLine) {
		for i, text := range texts {
			all = append(all, manifold.LogLine{Seq: uint64(i + 1), Time: time.Now(), Text: text})
		}
		return all
	}
	stream := func(assignment string, l []manifold.LogLine) manifold.LogBatch {
		return manifold.LogBatch{Streams: []manifold.LogStream{
			{ID: "run/app", App: app, Assignment: assignment, Source: manifold.SourceApp, Process: "web.1", Lines: l},
		}}
	}
	build := j.spec.Assignment
	must(t, agent.Post(t.Context(), "/fleet/v1/logs", stream(build, lines("one", "two"))))
	must(t, agent.Post(t.Context(), "/fleet/v1/logs", stream(build, lines("one", "two", "three")))) // sent again
	must(t, thief.Post(t.Context(), "/fleet/v1/logs", stream(build, lines("forged", "", "", "", "forged"))))
	must(t, agent.Post(t.Context(), "/fleet/v1/logs", stream("", lines("of the app"))))
	must(t, j.WaitLines(t.Context(), 3))
	r.CloseJob(j)
	if strings.Join(got, " ") != "one two three" {
		t.Errorf("the job's reader got %q", got)
	}
	recent, err := r.logs.Recent(app, logs.Filter{}, 100)
	must(t, err)
	var all []string
	for _, l := range recent {
		all = append(all, l.Text)
	}
	if text := strings.Join(all, "|"); !strings.Contains(text, "of the app") || strings.Contains(text, "one") {
		t.Errorf("the app's log is %q", text)
	}
}

// The hub keeps the highest number of each stream: a host must not be able to
// use up the numbers of a stream another host writes.
func TestNoHostSilencesAnothersStream(t *testing.T) {
	r := newRig(t)
	agent, thief := r.join(manifold.RoleAgent), r.join(manifold.RoleAgent)
	app := uuid.NewString()
	batch := func(seq uint64, text string) manifold.LogBatch {
		return manifold.LogBatch{Streams: []manifold.LogStream{{
			ID: "run/app", App: app, Source: manifold.SourceApp, Process: "web.1",
			Lines: []manifold.LogLine{{Seq: seq, Time: time.Now(), Text: text}},
		}}}
	}
	must(t, thief.Post(t.Context(), "/fleet/v1/logs", batch(1_000_000, "noise")))
	must(t, agent.Post(t.Context(), "/fleet/v1/logs", batch(1, "voice")))
	recent, err := r.logs.Recent(app, logs.Filter{}, 100)
	must(t, err)
	for _, l := range recent {
		if l.Text == "voice" {
			return
		}
	}
	t.Fatalf("the log is %+v", recent)
}

// A reader that hangs must not hold up the host that sends.
func TestSlowReaderOfAJobDropsAndCounts(t *testing.T) {
	release, got := make(chan struct{}), []string{}
	q := newLineQueue(func(l manifold.LogLine) { <-release; got = append(got, l.Text) })
	text := strings.Repeat("x", manifold.MaxLogLine)
	const lines = 3000
	for i := range lines {
		q.put([]manifold.LogLine{{Seq: uint64(i + 1), Text: text}})
	}
	must(t, q.wait(t.Context(), lines))
	close(release)
	q.close()
	if len(got) > maxQueued/manifold.MaxLogLine+100 {
		t.Errorf("%d lines of 10,000 bytes were kept", len(got))
	}
	if last := got[len(got)-1]; !strings.Contains(last, "lines were dropped here") {
		t.Errorf("the last line is %.80q", last)
	}
}

func TestImages(t *testing.T) {
	r := newRig(t)
	agent := r.join(manifold.RoleAgent)
	img, err := r.images.Add(t.Context(), strings.NewReader("0123456789"), "", 0)
	must(t, err)
	if got, body := agent.get(t, "/fleet/v1/images/"+img.Digest); got != 200 || body != "0123456789" {
		t.Errorf("answered %d %q", got, body)
	}
	res, err := agent.Do(t.Context(), http.MethodGet, "/fleet/v1/images/"+img.Digest, nil, http.Header{"Range": {"bytes=7-"}})
	must(t, err)
	rest, err := io.ReadAll(res.Body)
	must(t, errors.Join(err, res.Body.Close()))
	if res.StatusCode != http.StatusPartialContent || string(rest) != "789" {
		t.Errorf("the rest is %d %q", res.StatusCode, rest)
	}
	for _, name := range []string{digestOf("missing"), "..%2f..%2fetc%2fpasswd", "sha256:" + strings.ToUpper(img.Digest[7:]), "x"} {
		if got, _ := agent.get(t, "/fleet/v1/images/"+name); got != 404 {
			t.Errorf("%s answered %d, want 404", name, got)
		}
	}
}
