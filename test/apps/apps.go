// Package apps holds the sample apps that tests push, each a directory that
// could be a user's repository. It must hold nothing else: no app may know
// that it runs on this platform.
package apps

import "embed"

// Hello is the app that `manifold run` deploys the first time.
//
//go:embed all:hello
var Hello embed.FS
