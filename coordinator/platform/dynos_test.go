package platform

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"manifold"
)

type dynoEntry struct {
	ID, Name, Type, State, Size, Command string
	AttachURL                            *string `json:"attach_url"`
	Release                              struct {
		ID      string
		Version int
	}
}

func TestDynos(t *testing.T) {
	r := newRig(t)
	app := r.app("running")
	old := r.deploy(app, map[string]string{"web": "bin/web", "worker": "bin/work"})
	current := r.deploy(app, map[string]string{"web": "bin/web", "worker": "bin/work"})
	r.dynos.add(app, "worker.1", current.Version, manifold.StateCrashed)
	for _, name := range []string{"web.10", "web.2", "web.1"} {
		r.dynos.add(app, name, current.Version, manifold.StateUp)
	}
	r.dynos.add(app, "web.3", old.Version, manifold.StateStopping)
	r.dynos.add(app, "web.4", current.Version, "")
	r.dynos.add(app, "run.1", current.Version, manifold.StateComplete)
	r.dynos.add(r.app("another"), "web.7", 2, manifold.StateUp)

	all := into[[]dynoEntry](r.send("GET", "/apps/running/dynos", "").want(200))
	var names, states []string
	for _, d := range all {
		names, states = append(names, d.Name), append(states, d.State)
		want := current.ID
		if d.Name == "web.3" {
			want = old.ID
		}
		if d.Release.ID != want || d.Size != "Standard-1X" || d.Command != "run "+d.Type || d.AttachURL != nil {
			t.Errorf("%+v", d)
		}
	}
	if got := strings.Join(names, " "); got != "web.1 web.2 web.3 web.4 web.10 worker.1" {
		t.Errorf("dynos %s", got)
	}
	if got := strings.Join(states, " "); got != "up up up starting up crashed" {
		t.Errorf("states %s", got)
	}
	for _, name := range []string{"web.2", all[1].ID} {
		if got := into[dynoEntry](r.send("GET", "/apps/running/dynos/"+name, "").want(200)); got != all[1] {
			t.Errorf("GET %s: %+v", name, got)
		}
	}

	for _, tc := range []struct {
		method, path string
		want         string
	}{
		{"DELETE", "/dynos", "run.1 web.1 web.10 web.2 web.3 web.4 worker.1"}, // the scheduler leaves one-off dynos alone
		{"DELETE", "/dynos/worker.1", "worker.1"},
		{"DELETE", "/dynos/web.1", "web.1"},
		{"DELETE", "/dynos/" + all[1].ID, "web.2"},
		{"DELETE", "/dynos/web", "web.1 web.10 web.2 web.3 web.4"},
		{"DELETE", "/formations/web", "web.1 web.10 web.2 web.3 web.4"},
		{"POST", "/dynos/web.2/actions/stop", "web.2"},
		{"POST", "/formations/worker/actions/stop", "worker.1"},
	} {
		r.send(tc.method, "/apps/running"+tc.path, "").want(202)
		got := r.dynos.taken()
		slices.Sort(got)
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s %s restarted %v, want %s", tc.method, tc.path, got, tc.want)
		}
	}
	r.said(app, "Restarted worker.1 by user ada@example.com")
	r.said(app, "Restarted web by user ada@example.com")
	r.said(app, "Restarted all dynos by user ada@example.com")

	for _, path := range []string{"/dynos/web.9", "/dynos/clock", "/dynos/..%2fx", "/dynos/run.1"} {
		r.send("GET", "/apps/running"+path, "").fails(404, "not_found", "heroku ps")
		r.send("DELETE", "/apps/running"+path, "").fails(404, "not_found", "heroku ps")
		r.send("POST", "/apps/running"+path+"/actions/stop", "").fails(404, "not_found", "heroku ps")
	}
	r.send("DELETE", "/apps/running/formations/clock", "").fails(404, "not_found", "web, worker")
	if got := r.dynos.taken(); len(got) != 0 {
		t.Errorf("refused requests restarted %v", got)
	}
}

func TestLogSession(t *testing.T) {
	r := newRig(t)
	app := r.app("logged")
	r.hub.Write(app.ID, manifold.SourceApp, "web.1", "from web")
	r.hub.Write(app.ID, manifold.SourceApp, "worker.1", "from worker")
	read := func(body string) string {
		t.Helper()
		made := into[struct {
			ID  string
			URL string `json:"logplex_url"`
		}](r.send("POST", "/apps/logged/log-sessions", body).want(201))
		if !strings.HasPrefix(made.URL, r.url+"/streams/") || strings.Contains(made.URL, "srv") {
			t.Fatalf("logplex_url %q", made.URL)
		}
		res, err := http.Get(made.URL) // the URL is all it takes
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%d %v", res.StatusCode, err)
		}
		return string(text)
	}
	for body, want := range map[string][2]bool{
		``:                                 {true, true},
		`{"lines":100,"tail":false}`:       {true, true},
		`{"lines":1}`:                      {false, true},
		`{"lines":0}`:                      {false, false},
		`{"lines":99999}`:                  {true, true},
		`{"dyno":"web.1"}`:                 {true, false},
		`{"dyno":"web"}`:                   {true, false},
		`{"dyno_name":"worker.1"}`:         {false, true},
		`{"type":"worker"}`:                {false, true},
		`{"source":"heroku"}`:              {false, false},
		`{"source":"app","dyno":"worker"}`: {false, true},
	} {
		got := read(body)
		if strings.Contains(got, "from web") != want[0] || strings.Contains(got, "from worker") != want[1] {
			t.Errorf("%s: %s", body, got)
		}
	}
	r.send("POST", "/apps/logged/log-sessions", `{"lines":-1}`).fails(422, "invalid_params", "1500")
	r.send("POST", "/apps/logged/log-sessions", `{"lines":"many"}`).fails(400, "bad_request", "lines")
	tail := into[struct {
		URL string `json:"logplex_url"`
	}](r.send("POST", "/apps/logged/log-sessions", `{"tail":true}`).want(201))
	if !strings.HasSuffix(tail.URL, "?tail=true") {
		t.Errorf("logplex_url of a tail: %q", tail.URL)
	}
}
