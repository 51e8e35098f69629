// Package compiler is the slug compiler: it turns a pushed commit into a slug
// and the slug into a release.
//
//	pusher ◀── progress ── Build ── tar ─▶ build dyno (an agent's): driver ▶ buildpacks
//	                         ▲──── lines, slug image, result.json, cache.tar ────┘
//	                         └──── Deploy ─▶ store
//
// A build runs strangers' code, so it runs in a dyno and never here; all that
// comes back from it (lines, result, cache) is read within bounds and trusted
// for nothing but that app's own release. This room must never start a
// process, and must never put a config var into an argument, a log line or an
// error's text.
package compiler
