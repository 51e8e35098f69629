// Package fleet is the coordinator's end of wire.go: the door that agents and
// routers dial, over mTLS.
//
// It keeps what hosts and routers say in memory, hands each of them the newest
// state the scheduler set, and carries logs, images, job inputs and job
// outputs. It must never decide anything about dynos (that is the scheduler's)
// and never believe a name in a message: who speaks is read from the
// certificate.
package fleet
