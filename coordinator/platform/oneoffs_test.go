package platform

import (
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/coordinator/scheduler"
)

func TestRun(t *testing.T) {
	r := newRig(t)
	app := r.app("running")
	r.deploy(app, map[string]string{"web": "bin/web"})
	for _, tc := range []struct {
		name, body string
		want       scheduler.OneOff
		url        string
	}{
		{"the CLI in a terminal", `{"attach":true,"command":"bash","env":{"TERM":"xterm-256color","COLUMNS":101,"LINES":33,"X":null}}`,
			scheduler.OneOff{Command: "bash", Env: map[string]string{"TERM": "xterm-256color", "COLUMNS": "101", "LINES": "33"}, Attach: &manifold.Attach{Terminal: true, Rows: 33, Cols: 101}},
			"rendezvous://localhost:5444/secret"},
		{"the schema's strings", `{"attach":true,"command":"bash","env":{"COLUMNS":"80","LINES":"24"}}`,
			scheduler.OneOff{Command: "bash", Env: map[string]string{"COLUMNS": "80", "LINES": "24"}, Attach: &manifold.Attach{Terminal: true, Rows: 24, Cols: 80}},
			"rendezvous://localhost:5444/secret"},
		{"pipes", `{"attach":true,"command":"cat","force_no_tty":true,"size":"performance-m","type":"task"}`,
			scheduler.OneOff{Command: "cat", Type: "task", Size: must(manifold.ParseSize("Performance-M")), Attach: &manifold.Attach{}},
			"rendezvous://localhost:5444/secret"},
		{"detached", `{"command":"rake db:migrate","time_to_live":60}`,
			scheduler.OneOff{Command: "rake db:migrate", TTL: time.Minute}, ""},
		{"a window beyond all bounds", `{"attach":true,"command":"bash","env":{"COLUMNS":1e99,"LINES":-1}}`,
			scheduler.OneOff{Command: "bash", Env: map[string]string{"COLUMNS": "1e99", "LINES": "-1"}, Attach: &manifold.Attach{Terminal: true}},
			"rendezvous://localhost:5444/secret"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			r.dynos.started = nil
			got := into[dynoEntry](r.send("POST", "/apps/running/dynos", tc.body).want(201))
			if got.Name != "run.4711" || got.State != "starting" || got.Command != tc.want.Command || got.Release.ID == "" {
				t.Errorf("answer %+v", got)
			}
			if (got.AttachURL == nil) != (tc.url == "") || got.AttachURL != nil && *got.AttachURL != tc.url {
				t.Errorf("attach_url %v, want %q", got.AttachURL, tc.url)
			}
			tc.want.App = app.ID
			if tc.want.Size.Name == "" {
				tc.want.Size = must(manifold.ParseSize("Standard-1X"))
			}
			asked := r.dynos.started[0]
			if (asked.Attach == nil) != (tc.want.Attach == nil) || asked.Attach != nil && *asked.Attach != *tc.want.Attach {
				t.Errorf("attach %+v, want %+v", asked.Attach, tc.want.Attach)
			}
			for k, v := range tc.want.Env {
				if asked.Env[k] != v {
					t.Errorf("env %v, want %v", asked.Env, tc.want.Env)
				}
			}
			if len(asked.Env) != len(tc.want.Env) || asked.App != tc.want.App || asked.Type != tc.want.Type || asked.Size != tc.want.Size || asked.TTL != tc.want.TTL {
				t.Errorf("asked %+v, want %+v", asked, tc.want)
			}
		})
	}
	r.said(app, "Starting process with command `bash` by user ada@example.com")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRunRefused(t *testing.T) {
	r := newRig(t)
	app := r.app("refusing")
	r.deploy(app, map[string]string{"web": "bin/web"})
	for _, tc := range []struct {
		body, id string
		status   int
		words    string
	}{
		{`{}`, "invalid_params", 422, "what to run"},
		{`{"command":"  "}`, "invalid_params", 422, "what to run"},
		{`{"command":"` + strings.Repeat("x", manifold.MaxCommand+1) + `"}`, "invalid_params", 422, "32 KB"},
		{`{"command":"a\u0000b"}`, "invalid_params", 422, "NUL"},
		{`{"command":["ls"]}`, "bad_request", 400, "command"},
		{`{"command":"ls","env":{"A B":"x"}}`, "invalid_params", 422, "A B"},
		{`{"command":"ls","env":{"A":{}}}`, "invalid_params", 422, "string or a number"},
		{`{"command":"ls","env":[]}`, "bad_request", 400, "env"},
		{`{"command":"ls","env":{"A":"` + strings.Repeat("x", manifold.MaxConfigBytes) + `"}}`, "invalid_params", 422, "64 KB"},
		{`{"command":"ls","size":"huge"}`, "invalid_params", 422, "Standard-1X"},
		{`{"command":"ls","type":"../x"}`, "invalid_params", 422, "Process type"},
		{`{"command":"ls","time_to_live":0}`, "invalid_params", 422, "86400"},
		{`{"command":"ls","time_to_live":86401}`, "invalid_params", 422, "86400"},
		{`{"command":"ls","time_to_live":"soon"}`, "bad_request", 400, "time"},
	} {
		r.send("POST", "/apps/refusing/dynos", tc.body).fails(tc.status, tc.id, tc.words)
	}
	if len(r.dynos.started) != 0 {
		t.Errorf("started %+v", r.dynos.started)
	}
	for _, tc := range []struct {
		err    error
		status int
		id     string
		words  string
	}{
		{scheduler.ErrNoCode, 422, "invalid_params", "git push"},
		{&scheduler.LimitError{Limit: 50, What: "Standard-1X one-off dynos"}, 422, "cannot_run_above_limit", "Cannot run more than 50 Standard-1X one-off dynos"},
		{scheduler.ErrNoHost, 503, "service_unavailable", "No host is online to run it"},
		{errBroken, 500, "internal_server_error", ""},
	} {
		r.dynos.err = tc.err
		r.send("POST", "/apps/refusing/dynos", `{"command":"ls"}`).fails(tc.status, tc.id, tc.words)
	}
}

func TestRunInsideAndStop(t *testing.T) {
	r := newRig(t)
	app := r.app("inside")
	current := r.deploy(app, map[string]string{"web": "bin/web"})
	r.dynos.add(app, "web.1", current.Version, manifold.StateUp)
	r.dynos.add(app, "run.1234", current.Version, manifold.StateUp)
	r.dynos.add(app, "run.99", current.Version, manifold.StateUp)
	for i := range r.dynos.dynos[1:] {
		r.dynos.dynos[i+1].Kind = manifold.KindOneOff
	}
	got := into[dynoEntry](r.send("POST", "/apps/inside/dynos/web.1", `{"command":"ps aux","env":{"TERM":"xterm","COLUMNS":80,"LINES":24}}`,
		"Accept", "application/vnd.heroku+json; version=3.run-inside").want(201))
	if got.Name != "web.1" || got.AttachURL == nil || *got.AttachURL != "rendezvous://localhost:5444/secret" {
		t.Errorf("answer %+v", got)
	}
	if e := r.dynos.execs[0]; e.Command != "ps aux" || e.Dyno != "web.1" || e.Attach != (manifold.Attach{Terminal: true, Rows: 24, Cols: 80}) {
		t.Errorf("asked %+v", e)
	}
	r.said(app, "Running command `ps aux` inside web.1 by user ada@example.com")
	r.send("POST", "/apps/inside/dynos/web.9", `{"command":"ls"}`).fails(404, "not_found", "heroku ps")
	r.send("POST", "/apps/inside/dynos/web.1", `{}`).fails(422, "invalid_params", "what to run")

	for _, tc := range []struct{ method, path, want string }{
		{"POST", "/dynos/run.1234/actions/stop", "run.1234"},
		{"DELETE", "/dynos/run.1234", "run.1234"},
		{"POST", "/dynos/" + r.dynos.dynos[2].Assignment + "/actions/stop", "run.99"},
		{"POST", "/formations/run/actions/stop", "run.1234 run.99"},
	} {
		r.dynos.stopped = nil
		r.send(tc.method, "/apps/inside"+tc.path, "").want(202)
		if got := strings.Join(r.dynos.stopped, " "); got != tc.want {
			t.Errorf("%s %s stopped %s, want %s", tc.method, tc.path, got, tc.want)
		}
	}
	if got := r.dynos.taken(); len(got) != 0 {
		t.Errorf("restarted %v", got)
	}
	r.said(app, "Stopped run.1234 by user ada@example.com")
	r.send("POST", "/apps/inside/formations/clock/actions/stop", "").fails(404, "not_found", "web")
	r.dynos.err = scheduler.ErrNotUp
	r.send("POST", "/apps/inside/dynos/web.1", `{"command":"ls"}`).fails(422, "invalid_params", "web.1 is not up")
}
