package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"manifold/supervisor"
)

// defaultSample is how often a dyno's memory is looked at.
const defaultSample = 20 * time.Second

// policyFromEnv reads the numbers of supervision, each with the default that
// users of the platform expect.
//
//	MANIFOLD_GOOD_RUN           10m             up this long, the next crash counts as a first one
//	MANIFOLD_CLASSIC_WAITS      0,10m           before each restart after a crash; the last is repeated
//	MANIFOLD_PROGRESSIVE_WAITS  0,20m,…,320m    the same for apps that chose progressive backoff
//	MANIFOLD_HANGUP_EVERY       5s              between two SIGHUPs to a dyno that lost its client
//	MANIFOLD_SAMPLE_EVERY       20s             between two looks at a dyno's memory and load
//	MANIFOLD_HEALTH_EVERY       10s             between two health checks of a dyno whose app wants them
//	MANIFOLD_HEALTH_TIMEOUT     5s              for its answer
//	MANIFOLD_HEALTH_FAILURES    3               failed checks in a row, after which it is restarted
func policyFromEnv() (p supervisor.Policy, sample time.Duration, err error) {
	p, sample = supervisor.DefaultPolicy, defaultSample
	waits := func(name string, to *[]time.Duration) {
		text := os.Getenv(name)
		if text == "" || err != nil {
			return
		}
		var list []time.Duration
		for part := range strings.SplitSeq(text, ",") {
			var wait time.Duration
			if part = strings.TrimSpace(part); part != "0" {
				wait, err = parseWait(name, part)
			}
			if list = append(list, wait); err != nil {
				return
			}
		}
		*to = list
	}
	one := func(name string, to *time.Duration) {
		if text := os.Getenv(name); text != "" && err == nil {
			*to, err = parseWait(name, text)
		}
	}
	one("MANIFOLD_GOOD_RUN", &p.GoodRun)
	waits("MANIFOLD_CLASSIC_WAITS", &p.Classic)
	waits("MANIFOLD_PROGRESSIVE_WAITS", &p.Progressive)
	one("MANIFOLD_HANGUP_EVERY", &p.HangupEvery)
	one("MANIFOLD_SAMPLE_EVERY", &sample)
	one("MANIFOLD_HEALTH_EVERY", &p.HealthEvery)
	one("MANIFOLD_HEALTH_TIMEOUT", &p.HealthTimeout)
	if text := os.Getenv("MANIFOLD_HEALTH_FAILURES"); text != "" && err == nil {
		if p.HealthFailures, err = strconv.Atoi(text); err != nil || p.HealthFailures < 1 || p.HealthFailures > 1000 {
			err = fmt.Errorf("MANIFOLD_HEALTH_FAILURES must be a number from 1 to 1000, not %.40q", text)
		}
	}
	return p, sample, err
}

func parseWait(name, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d > 31*24*time.Hour {
		return 0, fmt.Errorf("%s must be times such as 20s or 10m, at most 744h, not %.40q", name, text)
	}
	return d, nil
}
