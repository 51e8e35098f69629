// Package git lets users push: smart HTTP in front of the real git, and the
// pre-receive step that makes a push a deploy.
//
//	git push ─▶ ServeHTTP ─▶ git http-backend ─▶ git receive-pack ─▶ pre-receive (Hook)
//	   ▲            │ one push at a time an app                            │ unix socket
//	   └ remote: …──┴──────────────── progress ◀── Builder ◀── git archive ◀┘
//
// The pushed objects stay in git's quarantine until the build has succeeded,
// so a refused push leaves no trace and the old release serving. A client that
// vanishes cancels its build. This room must never run git with anything a
// stranger wrote as an option, a path or configuration, and must never let a
// token reach a process, a log or a file.
package git
