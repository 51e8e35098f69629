package manifold

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ScheduledJob is a command that runs as a one-off dyno scheduler.N whenever
// its time comes.
type ScheduledJob struct {
	ID       string   `json:"id"`
	App      string   `json:"app"` // App.ID
	Command  string   `json:"command"`
	Size     string   `json:"size"` // Size.Name
	Schedule Schedule `json:"schedule"`
	// Due is the newest moment that was dealt with: its run was placed, or
	// could not be. It is written before anything runs.
	Due       time.Time `json:"due"`
	Dyno      string    `json:"dyno,omitempty"` // of the last run
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Schedule says when a job runs. All times are UTC.
type Schedule struct {
	Every  string `json:"every"` // EveryTenMinutes, EveryHour, EveryDay
	Hour   int    `json:"hour"`  // of EveryDay
	Minute int    `json:"minute"`
}

// How often a job runs.
const (
	EveryTenMinutes = "10m"
	EveryHour       = "hour"
	EveryDay        = "day"
)

// ParseSchedule reads how often, and at what moment: none for every ten
// minutes, ":30" for every hour, "14:30" for every day.
func ParseSchedule(every, at string) (Schedule, error) {
	s := Schedule{Every: every}
	refuse := func(why string) (Schedule, error) { return Schedule{}, invalid("Schedule", "%s", why) }
	number := func(text string, below int) int {
		n, err := strconv.Atoi(text)
		if err != nil || len(text) != 2 || n < 0 || n >= below {
			return -1
		}
		return n
	}
	hour, minute, ok := strings.Cut(at, ":")
	switch every {
	case EveryTenMinutes:
		if at != "" {
			return refuse("of every ten minutes has no moment (at): it runs at :00, :10, :20 …")
		}
		return s, nil
	case EveryHour:
		if s.Minute = number(minute, 60); !ok || hour != "" || s.Minute < 0 {
			return refuse("of every hour needs a minute (at), such as :30")
		}
		return s, nil
	case EveryDay:
		s.Hour, s.Minute = number(hour, 24), number(minute, 60)
		if !ok || s.Hour < 0 || s.Minute < 0 {
			return refuse("of every day needs a time in UTC (at), such as 04:30")
		}
		return s, nil
	}
	return refuse(fmt.Sprintf("must be every %s, %s or %s", EveryTenMinutes, EveryHour, EveryDay))
}

// At is the moment as ParseSchedule reads it.
func (s Schedule) At() string {
	switch s.Every {
	case EveryHour:
		return fmt.Sprintf(":%02d", s.Minute)
	case EveryDay:
		return fmt.Sprintf("%02d:%02d", s.Hour, s.Minute)
	}
	return ""
}

func (s Schedule) period() (every, offset time.Duration) {
	minute := time.Duration(s.Minute) * time.Minute
	switch s.Every {
	case EveryHour:
		return time.Hour, minute
	case EveryDay:
		return 24 * time.Hour, time.Duration(s.Hour)*time.Hour + minute
	}
	return 10 * time.Minute, 0
}

// Last is the newest moment of the schedule that is not after now.
func (s Schedule) Last(now time.Time) time.Time {
	every, offset := s.period()
	// Truncate counts from a midnight in UTC, and UTC's days have equal lengths.
	return now.UTC().Add(-offset).Truncate(every).Add(offset)
}

// Next is the first moment of the schedule after now.
func (s Schedule) Next(now time.Time) time.Time {
	every, _ := s.period()
	return s.Last(now).Add(every)
}
