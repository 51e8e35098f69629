// Package manifold holds the nouns of the platform: App, Release, Formation,
// Slug, Size, Dyno, Host, and the one description of what agent, router and
// coordinator say to each other (wire.go, link.go).
//
// Every other package may import this one; it imports the standard library
// only. Names that strangers choose are parsed and checked here, once, so that
// deeper rooms may trust them. It must never do work of its own: nothing here
// starts a goroutine, opens a file of the platform's state or knows a path.
package manifold
