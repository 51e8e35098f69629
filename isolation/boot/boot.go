// Package boot is what the agent's side and a dyno's PID 1 say to each other:
// two messages with their descriptors, one for the box and one for what runs in
// it, one request for each process that is started in it later, and one record
// when it has ended. PID 1 of an old agent and a new agent must understand each
// other, so fields of what is said after the start are only ever added.
//
// It is linked into PID 1, of which there is one per dyno: it must stay small.
package boot

import "time"

// FD is the descriptor on which PID 1 finds its end of the socket pair.
const FD = 3

// Box is what PID 1 needs to make everything of a dyno that does not depend on
// what will run in it. On the wire it is JSON behind its length (4 bytes, big
// endian), with these descriptors, in this order, beside its first byte: the
// scratch mount, the directory for PID 1's files, the cgroup.procs files of the
// app's cgroups, the cgroup files that tell of memory, and an eventfd(2) that
// counts OOM kills. PID 1 answers Started and a newline; any other answer is
// the text of what failed.
type Box struct {
	Procs  int      `json:"procs"`           // descriptors that are cgroup.procs files
	Stats  []string `json:"stats,omitempty"` // names of the descriptors that tell of memory
	OOMs   bool     `json:"ooms,omitempty"`  // the eventfd came too (cgroup v1)
	Memory int64    `json:"memory"`          // bytes, shown where programs look for their limit
	Place  Place    `json:"place"`
}

// Place is what every process of the app's gives itself up to before it is one.
type Place struct {
	UID       int    `json:"uid"` // in the dyno; also its group
	Processes int    `json:"processes"`
	OpenFiles int    `json:"open_files"`
	Filter    []byte `json:"filter"` // seccomp program, struct sock_filter[]
}

// Message is what runs in the box. It comes on the same wire as Box, and is
// answered alike when the app runs. Its descriptors: the layers' mounts,
// standard input, and the app's output or the socket for its terminal.
type Message struct {
	Run      string        `json:"run"`
	Layers   int           `json:"layers"` // descriptors that are layers, top first
	Argv     []string      `json:"argv"`
	Env      []string      `json:"env"`
	Dir      string        `json:"dir"`
	Files    []File        `json:"files"` // written into the root filesystem
	Grace    time.Duration `json:"grace"`
	TTL      time.Duration `json:"ttl,omitempty"`
	LogLimit int64         `json:"log_limit"`
	Output   bool          `json:"output,omitempty"`   // the app's output came too, and is not logged
	Terminal *Terminal     `json:"terminal,omitempty"` // the socket for its terminal came too
}

// Terminal makes a process's standard streams a terminal of the dyno's
// (pty(7)), which becomes its controlling terminal. The terminal's master goes
// to the agent, as the only descriptor of a one-byte message on the socket
// that came along; any longer message says why there is none. Nobody else
// holds the master: when the agent lets go of it, or dies, the kernel hangs up.
type Terminal struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// File is a small file of the platform's in the dyno's root filesystem.
type File struct {
	Path    string `json:"path"` // absolute
	Content string `json:"content"`
}

// Events is the cgroup v2 file that counts what happened at the memory limit;
// its descriptor is among Stats there.
const Events = "memory.events"

// Started is PID 1's answer when all went well; any other answer is the text
// of what failed.
const Started = "ok"

// ExecName is a stream socket in PID 1's directory, which only the host's root
// can reach. PID 1 serves connections from outside the dyno alone:
//
//	agent                                   PID 1
//	  Exec, as a Box on the wire ──▶     starts the process
//	                            ◀──  "ok\n", or what failed
//	                            ◀──  its exit status, decimal, and "\n"; closed
//
// Beside its first byte come standard input and output, or the socket for the
// terminal. If the agent closes first, the process gets SIGHUP.
const ExecName = "exec.sock"

// Exec is one more process for a running dyno. It gets what the app got:
// user, cgroups, limits, seccomp program.
type Exec struct {
	Argv     []string  `json:"argv"`
	Env      []string  `json:"env"`
	Dir      string    `json:"dir"`
	Terminal *Terminal `json:"terminal,omitempty"`
}

// MaxMessage bounds a message; a dyno's environment is the large part of it.
const MaxMessage = 4 << 20

// RecordName is the exit record's file in PID 1's directory, LogName its log
// segments' directory there.
const (
	RecordName = "exit.json"
	LogName    = "log"
)

// Record is the exit record.
type Record struct {
	Status  int       `json:"status"` // exit code, or 128 + signal
	Forced  bool      `json:"forced,omitempty"`
	Expired bool      `json:"expired,omitempty"`
	At      time.Time `json:"at"`
	Lines   uint64    `json:"lines"`
	OOM     *OOM      `json:"oom,omitempty"`
}

// OOM is what PID 1 saw when the memory limit struck, or on cgroup v2 when it
// last looked before: the cgroup's own files as they read then, and the
// biggest processes.
type OOM struct {
	Stats   map[string]string `json:"stats"`
	Biggest []Process         `json:"biggest,omitempty"`
}

// Process is one process and the memory it held.
type Process struct {
	PID  int    `json:"pid"`  // in the dyno
	Name string `json:"name"` // its own word: hostile
	RSS  int64  `json:"rss"`  // bytes
	Swap int64  `json:"swap"` // bytes
}
