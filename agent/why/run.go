// Package why answers one question: what ended this dyno? It keeps, bounded
// and on disk, what was known of each run when it ended (store.go) and of each
// app's last releases (releases.go), and says in plain words what that comes
// to (explain.go, hints.go).
//
// It judges from evidence alone and must never look at the host by itself: a
// run is long gone when somebody asks. It must never keep a config var's
// value (a health check's path, which is checked to be fit for logs, is no
// secret), and never take a dyno's own words for more than a hint: the numbers
// of kernel and supervisor come first.
package why

import (
	"time"

	"manifold"
	"manifold/isolation"
)

// Run is the evidence of one run that ended.
type Run struct {
	Version    int             `json:"version"`
	App        string          `json:"app"`
	AppName    string          `json:"app_name"`
	Dyno       string          `json:"dyno"`
	Kind       manifold.Kind   `json:"kind"`
	Assignment string          `json:"assignment"`
	Run        string          `json:"run"`
	Release    int             `json:"release,omitempty"`
	Size       manifold.Size   `json:"size"`
	Command    string          `json:"command"` // as the Procfile has it: config vars are not put in
	Port       int             `json:"port,omitempty"`
	Began      time.Time       `json:"began,omitzero"`
	UpAt       time.Time       `json:"up_at,omitzero"` // zero: it never was
	Result     manifold.Result `json:"result"`
	Crashes    int             `json:"crashes,omitempty"`
	NextTry    time.Time       `json:"next_try,omitzero"`
	Stopped    bool            `json:"stopped,omitempty"`   // it was told to end
	Withdrawn  bool            `json:"withdrawn,omitempty"` // by the coordinator; else by this host
	Grace      time.Duration   `json:"grace,omitempty"`     // it had to end after SIGTERM
	Boot       time.Duration   `json:"boot,omitempty"`      // it had to listen
	HostLost   bool            `json:"host_lost,omitempty"` // it ended with the host

	End    isolation.End  `json:"end"`
	Disk   isolation.Disk `json:"disk"`
	Trail  []Sample       `json:"trail,omitempty"`  // its last minutes, oldest first
	Before *Snapshot      `json:"before,omitempty"` // of the SIGKILL that ended it, if the agent sent one
	Host   Host           `json:"host"`
	Others []Neighbour    `json:"others,omitempty"` // the dynos with the most memory then
	Lines  []Line         `json:"lines,omitempty"`  // its last ones, and what the platform said
}

// Sample is what a dyno used at one moment.
type Sample struct {
	At time.Time `json:"at"`
	isolation.Usage
}

// Snapshot is what was in a dyno at one moment.
type Snapshot struct {
	At        time.Time           `json:"at"`
	Usage     isolation.Usage     `json:"usage"`
	Processes []isolation.Process `json:"processes,omitempty"`
	Listeners []string            `json:"listeners,omitempty"`
}

// Host is the host at the end of a run.
type Host struct {
	Pressure  [3]isolation.Stall `json:"pressure"`  // cpu, memory, io
	Available int64              `json:"available"` // bytes of RAM that could be had (proc_meminfo(5), MemAvailable)
	SwapFree  int64              `json:"swap_free"`
	SwapTotal int64              `json:"swap_total"`
	DiskFree  int64              `json:"disk_free"` // bytes, where the dynos' layers are
}

// Neighbour is another dyno on the host.
type Neighbour struct {
	Name   string `json:"name"` // "app:web.1"
	Memory int64  `json:"memory"`
}

// Line is a line of a run's log.
type Line struct {
	At     time.Time `json:"at"`
	Source string    `json:"source"` // manifold.SourceApp or manifold.SourceHeroku
	Text   string    `json:"text"`
}

// KeptLines is how many lines of a run are kept, MaxText where each is cut,
// in bytes.
const (
	KeptLines = 50
	MaxText   = 1000
)
