// Package coordinator joins the coordinator's rooms to one process: it opens
// the store, the certificate authority, the image store and the logs, runs the
// fleet's door, the scheduler, git and the compiler, and serves API, git and
// log streams on one pair of addresses.
//
// It must never hold a rule of the platform: what a room decides stays there.
// Dynos and routers do not notice when this process ends or starts.
package coordinator
