// Package scheduler turns what users want (formations, releases) into
// placements, and placements into what each host shall run and each router
// shall route to.
//
// One loop reads the store and the fleet, asks the pure function plan what to
// do next and does it; every step is durable before anyone is told. It must
// never act on a single message: only on the state as a whole, so that a step
// lost or repeated is mended by the next pass.
package scheduler
