package manifold

import (
	"testing"
	"time"
)

func TestSchedules(t *testing.T) {
	for _, c := range []struct{ every, at, now, last, next string }{
		{"10m", "", "2024-02-29T23:59:59Z", "2024-02-29T23:50:00Z", "2024-03-01T00:00:00Z"},
		{"10m", "", "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-03-01T00:10:00Z"},
		{"hour", ":30", "2024-03-01T00:29:59Z", "2024-02-29T23:30:00Z", "2024-03-01T00:30:00Z"},
		{"hour", ":00", "2024-03-01T00:29:59Z", "2024-03-01T00:00:00Z", "2024-03-01T01:00:00Z"},
		{"day", "04:30", "2024-03-31T02:30:00Z", "2024-03-30T04:30:00Z", "2024-03-31T04:30:00Z"},
		{"day", "23:59", "2024-12-31T23:59:00Z", "2024-12-31T23:59:00Z", "2025-01-01T23:59:00Z"},
		{"day", "04:30", "2024-03-31T09:30:00+05:00", "2024-03-31T04:30:00Z", "2024-04-01T04:30:00Z"},
	} {
		s, err := ParseSchedule(c.every, c.at)
		if err != nil || s.At() != c.at {
			t.Errorf("%s %s: %v, at %q", c.every, c.at, err, s.At())
		}
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Last(now).Format(time.RFC3339); got != c.last {
			t.Errorf("%s %s at %s: last %s, want %s", c.every, c.at, c.now, got, c.last)
		}
		if got := s.Next(now).Format(time.RFC3339); got != c.next {
			t.Errorf("%s %s at %s: next %s, want %s", c.every, c.at, c.now, got, c.next)
		}
	}
	for _, bad := range [][2]string{{"", ""}, {"10m", ":10"}, {"hour", ""}, {"hour", ":60"}, {"hour", "1:30"}, {"hour", ":5"}, {"day", ":30"}, {"day", "24:00"}, {"day", "-1:00"}, {"day", "04:30:00"}, {"week", ""}} {
		if s, err := ParseSchedule(bad[0], bad[1]); err == nil {
			t.Errorf("%v is taken for %+v", bad, s)
		}
	}
}
