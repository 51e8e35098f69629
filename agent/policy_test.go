package agent

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"manifold/supervisor"
)

func TestFromEnv(t *testing.T) {
	p, sample, err := policyFromEnv()
	if err != nil || sample != 20*time.Second || !reflect.DeepEqual(p, supervisor.DefaultPolicy) {
		t.Errorf("without a word the policy is %+v, %v, %v", p, sample, err)
	}
	t.Setenv("MANIFOLD_CLASSIC_WAITS", "0, 1m, 5m")
	t.Setenv("MANIFOLD_GOOD_RUN", "1h")
	t.Setenv("MANIFOLD_SAMPLE_EVERY", "5s")
	p, sample, err = policyFromEnv()
	if want := []time.Duration{0, time.Minute, 5 * time.Minute}; err != nil || !reflect.DeepEqual(p.Classic, want) || p.GoodRun != time.Hour || sample != 5*time.Second {
		t.Errorf("the policy is %+v, %v, %v", p, sample, err)
	}
	t.Setenv("MANIFOLD_CPU_CAP", "0.5")
	if cfg, err := FromEnv(); err != nil || cfg.isolation(home{t.TempDir()}).CPUCap != 0.5 {
		t.Errorf("the cap on CPU time is %v, %v", cfg.CPUCap, err)
	}
	for name, bad := range map[string]string{
		"MANIFOLD_CLASSIC_WAITS": "0,,1m", "MANIFOLD_PROGRESSIVE_WAITS": "-1m", "MANIFOLD_GOOD_RUN": "soon", "MANIFOLD_SAMPLE_EVERY": "0",
		"MANIFOLD_HEALTH_EVERY": "10", "MANIFOLD_HEALTH_FAILURES": "0", "MANIFOLD_CPU_CAP": "half",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, bad)
			if _, err := FromEnv(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%s gives %v", name, bad, err)
			}
		})
	}
}

func TestLogDiskFromEnv(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1": 1 << 20, "4096": 4 << 30, "0": -1, "4097": -1, "16MB": -1, "-5": -1} {
		t.Setenv("MANIFOLD_LOG_DISK", text)
		c, err := FromEnv()
		if refused := err != nil && strings.Contains(err.Error(), "MANIFOLD_LOG_DISK"); refused != (want < 0) || !refused && c.LogLimit != want {
			t.Errorf("%q gives %d, %v", text, c.LogLimit, err)
		}
	}
}
