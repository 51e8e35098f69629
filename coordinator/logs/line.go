package logs

import "time"

// Line is one line as it is shown.
type Line struct {
	ID      uint64 // grows by one with each line of the app
	Time    time.Time
	Source  string // "app", "heroku"
	Process string // "web.1", "router"
	Text    string
}

// Filter chooses lines. An empty field matches all. Dyno is a dyno ("web.1")
// or a process type ("web" matches "web.1", "web.2" …).
type Filter struct{ Source, Dyno string }

// Tail follows one app's lines.
type Tail struct{}
