// Package isolation builds one dyno's box out of Linux primitives and takes
// it down again: user, mount, pid, network, ipc, uts and cgroup namespaces; a
// root filesystem of read-only images under a private writable layer; a veth
// pair and a firewall table; memory, CPU and process limits; and the PID 1
// that runs inside (package main in pid1/, embedded here).
//
// It knows nothing of apps, releases, restarts or the network beyond this
// host. It must never trust anything that a dyno can write, never depend on
// the agent staying alive once a dyno has started, and never touch a cgroup,
// link, table or directory that does not carry the instance's mark.
//
// # Starting a dyno
//
// The agent's side runs as root on the host, PID 1 as root of the dyno's own
// user namespace. They share a socket pair and nothing else:
//
//	agent                                         PID 1
//	  slot, scratch image, cgroups
//	  clone into new namespaces ───────────────▶  waits on the socket
//	  veth: one end there, one end here
//	  boot.Box + descriptors ──────────────────▶  writable layer, /proc, /dev, /sys
//	                                              a process in the app's cgroups, without privileges
//	             ◀────────────────────────────── "ok", or what failed
//	  Start: box.json, the run's name
//	  image mounts id-mapped to the dyno's
//	  user namespace
//	  boot.Message + descriptors ──────────────▶  overlay, pivot_root, hostname
//	                                              the process becomes the app
//	             ◀────────────────────────────── "ok", or what failed
//	  both close the socket
//
// What comes before Start is the same for every dyno of a size, and takes
// nearly all of the time: a few boxes that have come that far are kept ready
// (spares.go). If this process dies, their PID 1s see the socket's end and end
// too; the next process removes what is left of them.
//
// A dyno that somebody is attached to has its standard streams in the agent's
// hands (attach.go): pipes, or a terminal that the app's first step opens inside
// the dyno and whose master it sends back. No helper copies bytes, and nobody
// but the agent holds that end: its death is a hangup, and the dyno goes on.
//
// From then on PID 1 depends on nobody: it reaps, writes log segments and, at
// the end, the exit record. SIGTERM makes it stop the dyno in its own time,
// SIGKILL ends everything at once (pid_namespaces(7)).
//
// # What is where
//
//	<Dir>/spare-<slot>/     a box without a run, until it is renamed to <run>
//	<Dir>/<run>/box.json    the run, its slot, its size
//	<Dir>/<run>/scratch.img the private writable layer: an ext4 image, so that
//	                        bytes and inodes are bounded on any host filesystem
//	<Dir>/<run>/pid1/       PID 1's own: exit.json, log/ (segment), and exec.sock,
//	                        by which the agent asks for one more process in it
//	cgroup <instance>/<slot> with init (PID 1) and app (all the rest) below it
//
// Everything else about a run is a pure function of its slot: the 65,536 user
// ids, the /30 network, the link's name.
package isolation
