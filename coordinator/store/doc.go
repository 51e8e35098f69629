// Package store keeps what the coordinator wants, in etcd: apps, releases,
// formations, slugs (not their bytes), placements, users, hosts and secrets.
// It holds the invariants between them. Small records only: it must never hold
// what agents observe, log lines, metrics or image bytes, and it decides
// nothing: which dyno runs where is the scheduler's business.
package store
