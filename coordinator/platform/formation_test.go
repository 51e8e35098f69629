package platform

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

type formationEntry struct {
	ID, Type, Size, Command string
	Quantity                int
}

func TestScale(t *testing.T) {
	r := newRig(t)
	app := r.app("scaled")
	r.deploy(app, map[string]string{"web": "bin/web -p $PORT", "worker": "bin/work", "clock": "bin/clock"})
	const path = "/apps/scaled/formation"
	show := func(all []formationEntry) string {
		var parts []string
		for _, f := range all {
			parts = append(parts, fmt.Sprintf("%s=%d:%s", f.Type, f.Quantity, f.Size))
		}
		return strings.Join(parts, " ")
	}
	for _, tc := range []struct{ body, want string }{
		{`{}`, "clock=0:Standard-1X web=1:Standard-1X worker=0:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":"2"},{"type":"worker","quantity":"1"}]}`, "clock=0:Standard-1X web=2:Standard-1X worker=1:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":"+1","size":"standard-2x"}]}`, "clock=0:Standard-1X web=3:Standard-2X worker=1:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":"-2"}]}`, "clock=0:Standard-1X web=1:Standard-2X worker=1:Standard-1X"},
		{`{"updates":[{"type":"worker","quantity":"-9"}]}`, "clock=0:Standard-1X web=1:Standard-2X worker=0:Standard-1X"},
		{`{"updates":[{"type":"worker","quantity":4,"size":null}]}`, "clock=0:Standard-1X web=1:Standard-2X worker=4:Standard-1X"},
		{`{"updates":[{"type":"web","size":{"name":"Standard-1X"},"docker_image":null}]}`, "clock=0:Standard-1X web=1:Standard-1X worker=4:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":"+1"},{"type":"web","quantity":"+1"}]}`, "clock=0:Standard-1X web=3:Standard-1X worker=4:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":0}]}`, "clock=0:Standard-1X web=0:Standard-1X worker=4:Standard-1X"},
		{`{"updates":[{"type":"web","quantity":100}]}`, "clock=0:Standard-1X web=100:Standard-1X worker=4:Standard-1X"},
	} {
		got := into[[]formationEntry](r.send("PATCH", path, tc.body).want(200))
		if show(got) != tc.want {
			t.Errorf("%s gives %s, want %s", tc.body, show(got), tc.want)
		}
		if kept := into[[]formationEntry](r.send("GET", path, "").want(200)); show(kept) != tc.want {
			t.Errorf("%s keeps %s, want %s", tc.body, show(kept), tc.want)
		}
	}
	r.said(app, "Scaled to web@2:Standard-1X worker@1:Standard-1X by user ada@example.com")
	r.said(app, "Scaled to web@3:Standard-2X by user ada@example.com")

	one := into[formationEntry](r.send("PATCH", path+"/web", `{"quantity":"1","type":"worker"}`).want(200))
	if one.Type != "web" || one.Quantity != 1 || one.Command != "bin/web -p $PORT" {
		t.Errorf("PATCH of one: %+v", one)
	}
	for _, name := range []string{"web", one.ID} {
		if got := into[formationEntry](r.send("GET", path+"/"+name, "").want(200)); got != one {
			t.Errorf("GET of one: %+v, want %+v", got, one)
		}
	}
}

func TestBadScale(t *testing.T) {
	r := newRig(t)
	app := r.app("bad-scale")
	const path = "/apps/bad-scale/formation"
	r.send("PATCH", path, `{"updates":[{"type":"web","quantity":1}]}`).fails(404, "not_found", "no process types yet", "git push")
	r.deploy(app, map[string]string{"web": "bin/web", "worker": "bin/work"})

	r.send("PATCH", path, `{"updates":[{"type":"worker","quantity":5},{"type":"wrker","quantity":1}]}`).fails(404, "not_found", `"wrker"`, "web, worker", "Procfile")
	r.send("GET", path+"/wrker", "").fails(404, "not_found", "web, worker")
	r.send("PATCH", path+"/wrker", `{"quantity":1}`).fails(404, "not_found", "web, worker")
	for _, quantity := range []string{`-1`, `101`, `"101"`, `"1000000"`, `99999999999999999999`, `"99999999999999999999"`, `1.5`, `"1.5"`, `1e2`, `"two"`, `""`, `"+"`, `"+-1"`, `" 1"`, `true`, `{}`, `"+100"`, `"` + strings.Repeat("9", 5000) + `"`} {
		got := r.send("PATCH", path, `{"updates":[{"type":"worker","quantity":5},{"type":"web","quantity":`+quantity+`}]}`)
		got.fails(422, "invalid_params", "Quantity")
		if len(got.text) > 1000 {
			t.Errorf("the answer to a quantity of %d bytes has %d", len(quantity), len(got.text))
		}
	}
	for _, size := range []string{`"huge"`, `{"name":"huge"}`, `""`, `{}`} {
		r.send("PATCH", path, `{"updates":[{"type":"worker","quantity":5,"size":`+size+`}]}`).fails(422, "invalid_params", "Standard-1X", "Performance-L")
	}
	for _, body := range []string{`{"updates":{}}`, `{"updates":[1]}`, `{"updates":"web=1"}`, `{"updates":[{"type":["web"]}]}`, `{"updates":[{"type":"web","size":7}]}`} {
		r.send("PATCH", path, body).fails(400, "bad_request")
	}
	r.send("PATCH", path, `{"updates":[`+strings.Repeat(`{},`, 1000)+`{}]}`).fails(422, "invalid_params", "1000")
	// All or nothing: the good half of a bad request was not done either.
	for _, f := range into[[]formationEntry](r.send("GET", path, "").want(200)) {
		if f.Type == "worker" && f.Quantity != 0 || f.Type == "web" && f.Quantity != 1 {
			t.Errorf("a refused request changed %+v", f)
		}
	}
}

// Two writers on one formation: no wish is lost.
func TestTwoWriters(t *testing.T) {
	r := newRig(t)
	app := r.app("contended")
	r.deploy(app, map[string]string{"web": "bin/web", "worker": "bin/work"})
	const writers, each = 4, 5
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				for {
					got := r.send("PATCH", "/apps/contended/formation", `{"updates":[{"type":"worker","quantity":"+1"}]}`)
					if got.status == 200 {
						break
					}
					if got.status != 409 {
						t.Errorf("status %d: %s", got.status, got.text)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if got := into[formationEntry](r.send("GET", "/apps/contended/formation/worker", "").want(200)); got.Quantity != writers*each {
		t.Errorf("%d wishes for one more made %d", writers*each, got.Quantity)
	}
}

func TestThousandTypes(t *testing.T) {
	r := newRig(t)
	app := r.app("many-types")
	types := map[string]string{}
	for i := range 1000 {
		types[fmt.Sprintf("type%d", i)] = "true"
	}
	r.deploy(app, types)
	r.send("PATCH", "/apps/many-types/formation", `{"updates":[{"type":"type7","quantity":1}]}`).want(200)
	got := r.send("GET", "/apps/many-types/formation/none", "").want(404)
	if len(got.text) > 1000 || !strings.Contains(got.text, "and 980 more") {
		t.Errorf("the answer is %d bytes long: %.300s", len(got.text), got.text)
	}
}
