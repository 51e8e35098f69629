package platform

import (
	"fmt"
	"sync"
	"testing"
)

func TestScheduledJobs(t *testing.T) {
	r := newRig(t)
	app := r.app("timed")
	const path = "/apps/timed/scheduler-jobs"
	for body, word := range map[string]string{
		`{}`: "Command", `{"command":"a\nb","every":"10m"}`: "one line", `{"command":"x"}`: "every", `{"command":"x","every":"hour"}`: "minute",
		`{"command":"x","every":"week"}`: "every", `{"command":"x","every":"10m","size":"huge"}`: "Size", `{"command":"x","every":"day","at":"25:00"}`: "time",
	} {
		r.send("POST", path, body).fails(422, "invalid_params", word)
	}
	job := into[object](r.send("POST", path, `{"command":"rake tidy","every":"day","at":"04:30","size":"eco"}`).want(201))
	if job["every"] != "day" || job["at"] != "04:30" || job["size"] != "Eco" || job["last_run"] != nil || job["next_run_at"] == nil {
		t.Errorf("%v", job)
	}
	one := path + "/" + job["id"].(string)
	job = into[object](r.send("PATCH", one, `{"every":"hour","at":":05"}`).want(200))
	if job["every"] != "hour" || job["at"] != ":05" || job["command"] != "rake tidy" {
		t.Errorf("%v", job)
	}
	if all := into[[]object](r.send("GET", path, "").want(200)); len(all) != 1 {
		t.Errorf("%v", all)
	}
	if d := into[object](r.send("POST", one+"/actions/run", "").want(201)); d["command"] != "rake tidy" || r.dynos.started[0].Type != "scheduler" || r.dynos.started[0].App != app.ID {
		t.Errorf("%v, started %+v", d, r.dynos.started)
	}
	r.said(app, "Run scheduled job `rake tidy` by user ada@example.com")
	r.send("DELETE", one, "").want(200)
	r.send("GET", one, "").fails(404, "not_found", "no scheduled job")
	r.send("GET", path+"/x", "").fails(404, "not_found")
	r.strangersApp()
	r.send("GET", "/apps/not-yours/scheduler-jobs", "").fails(404, "not_found")
}

// Two who change different things of a job at the same time both get their way.
func TestAJobIsChangedByTwoAtOnce(t *testing.T) {
	r := newRig(t)
	r.app("timed")
	const path = "/apps/timed/scheduler-jobs"
	one := path + "/" + into[object](r.send("POST", path, `{"command":"x","every":"10m"}`).want(201))["id"].(string)
	for n := range 20 {
		size, command := []string{"Eco", "Basic"}[n%2], fmt.Sprintf("rake %d", n)
		var both sync.WaitGroup
		for _, body := range []string{`{"command":"` + command + `"}`, `{"size":"` + size + `"}`} {
			both.Go(func() { r.send("PATCH", one, body) })
		}
		both.Wait()
		if job := into[object](r.send("GET", one, "").want(200)); job["command"] != command || job["size"] != size {
			t.Fatalf("in round %d the job became %v of size %v, want %s of size %s", n, job["command"], job["size"], command, size)
		}
	}
}
