package platform

import (
	"strconv"
	"testing"
	"time"

	"manifold/test/bubble"
)

func TestRateLimit(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.CallsPerHour = 5 })
	for left := 4; left >= 0; left-- {
		if got := r.send("GET", "/apps", "").want(200).header.Get("RateLimit-Remaining"); got != strconv.Itoa(left) {
			t.Errorf("RateLimit-Remaining %q, want %d", got, left)
		}
	}
	got := r.send("GET", "/apps", "")
	got.fails(429, "rate_limit", "5 calls")
	if got.header.Get("Retry-After") != "720" {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
	if left := into[struct{ Remaining int }](r.send("GET", "/account/rate-limits", "").want(200)); left.Remaining != 0 {
		t.Errorf("%d calls left, want 0", left.Remaining)
	}
	r.send("GET", "/apps", "", "Authorization", "Bearer wrong").want(401)
}

func TestRateRefills(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRates(4500)
		for range 4500 {
			if !r.of("ada").Allow() {
				t.Fatal("refused within the pool")
			}
		}
		if r.of("ada").Allow() || !r.of("eve").Allow() {
			t.Error("pools are not apart")
		}
		time.Sleep(time.Minute)
		if n := int(r.of("ada").Tokens()); n != 75 {
			t.Errorf("a minute refills %d calls, want 75", n)
		}
		time.Sleep(24 * time.Hour)
		if n := int(r.of("ada").Tokens()); n != 4500 {
			t.Errorf("a day fills the pool to %d, want 4500", n)
		}
	})
}
