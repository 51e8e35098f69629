package platform

import (
	"net/url"
	"strings"
	"testing"
)

type drainEntry struct {
	ID, URL, Token string
	CreatedAt      string `json:"created_at"`
}

func TestDrains(t *testing.T) {
	r := newRig(t)
	app := r.app("drained")
	const to = "https://u:pass@logs.example.com/in?x=y"
	d := into[drainEntry](r.send("POST", "/apps/drained/log-drains", `{"url":"`+to+`","extra":1}`).want(201))
	if d.URL != to || !strings.HasPrefix(d.Token, "d.") || d.ID == "" || d.CreatedAt == "" {
		t.Errorf("created %+v", d)
	}
	r.said(app, "Add log drain "+d.Token+" by user ada@example.com")
	if all := into[[]drainEntry](r.send("GET", "/apps/drained/log-drains", "").want(200)); len(all) != 1 || all[0] != d {
		t.Errorf("listed %+v", all)
	}
	for _, name := range []string{d.ID, d.Token, url.QueryEscape(to)} {
		if got := into[drainEntry](r.send("GET", "/apps/drained/log-drains/"+name, "").want(200)); got != d {
			t.Errorf("%s is %+v", name, got)
		}
	}
	if got := into[drainEntry](r.send("DELETE", "/apps/drained/log-drains/"+url.QueryEscape(to), "").want(200)); got != d {
		t.Errorf("removed %+v", got)
	}
	r.said(app, "Remove log drain "+d.Token+" by user ada@example.com")
	r.send("GET", "/apps/drained/log-drains/"+d.Token, "").fails(404, "not_found", "heroku drains")
	r.send("DELETE", "/apps/drained/log-drains/"+d.Token, "").fails(404, "not_found", "heroku drains")
}

func TestDrainsThatCannotBe(t *testing.T) {
	r := newRig(t)
	r.app("drained")
	for body, words := range map[string]string{
		``: "missing", `{}`: "missing", `{"url":7}`: "", `{"url":"ftp://h"}`: "must begin with", `{"url":"syslog://h"}`: "port",
		`{"url":"https://` + strings.Repeat("x", 3000) + `/"}`: "too long", `{"url":"http://h/\r\nX: y"}`: "escaped",
	} {
		if got := r.send("POST", "/apps/drained/log-drains", body); got.status/100 != 4 || !strings.Contains(got.text, words) {
			t.Errorf("%.60s: %d %s", body, got.status, got.text)
		}
	}
	for i, path := range []string{"a", "b", "c", "d", "e"} {
		r.send("POST", "/apps/drained/log-drains", `{"url":"http://h/`+path+`"}`).want(201)
		if i == 0 {
			r.send("POST", "/apps/drained/log-drains", `{"url":"http://h/a"}`).fails(422, "invalid_params", "already been taken")
		}
	}
	r.send("POST", "/apps/drained/log-drains", `{"url":"http://h/f"}`).fails(422, "invalid_params", "the most it can have")
	strangers := r.strangersApp()
	r.send("GET", "/apps/"+strangers.Name+"/log-drains", "").fails(404, "not_found")
	r.send("POST", "/apps/"+strangers.Name+"/log-drains", `{"url":"http://h/"}`).fails(404, "not_found")
}
