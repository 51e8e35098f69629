package supervisor

import (
	"math"
	"regexp"
	"testing"
	"time"

	"manifold"
)

func TestRuntimeMetrics(t *testing.T) {
	a := manifold.Assignment{App: "97b4e30d-2f4b-4d33-8a3a-6a2f0d6f0001", Dyno: "web.1", RuntimeMetrics: true}
	plan := PlanOf(a)
	l := newLife(t, Plan{Metrics: plan.Metrics, Quota: 512 << 20})
	l.on(Event{Kind: Launched}).is(Up)
	l.said = nil
	l.on(Event{Kind: Sampled, Memory: 21 << 20, Sample: Sample{
		RSS: 21 << 20, Cache: 1 << 19, Swap: 1 << 20, PagesIn: 348836, PagesOut: 343403, Load: Load{2.46, 1.06, .99},
	}}).is(Up).does()
	want := []string{
		`^source=web\.1 dyno=heroku\.\d+\.run-1 sample#load_avg_1m=2\.46 sample#load_avg_5m=1\.06 sample#load_avg_15m=0\.99$`,
		`^source=web\.1 dyno=heroku\.\d+\.run-1 sample#memory_total=22\.50MB sample#memory_rss=21\.00MB sample#memory_cache=0\.50MB ` +
			`sample#memory_swap=1\.00MB sample#memory_pgpgin=348836pages sample#memory_pgpgout=343403pages sample#memory_quota=512\.00MB$`,
	}
	if len(l.said) != len(want) {
		t.Fatalf("it said %q", l.said)
	}
	for i, w := range want {
		if !regexp.MustCompile(w).MatchString(l.said[i]) {
			t.Errorf("it said %q, want %s", l.said[i], w)
		}
	}
	if p := PlanOf(manifold.Assignment{Dyno: "web.1"}); p.Metrics != "" {
		t.Errorf("an app that did not ask gets lines: %q", p.Metrics)
	}
}

func TestLoad(t *testing.T) {
	var l Load
	for range 90 { // half an hour of one busy thread
		l.Add(1, 20*time.Second)
	}
	for i, want := range []float64{1, .998, .865} {
		if math.Abs(l[i]-want) > .01 {
			t.Errorf("load is %v, want %v at %d", l, want, i)
		}
	}
	l.Add(0, time.Minute)
	if math.Abs(l[0]-math.Exp(-1)) > .01 {
		t.Errorf("after an idle minute the load is %v", l)
	}
}
